"""The registries of components, in which configs find them by name.

MMEngine imports ``{scope}.registry`` for the scope of a config, so the scope must be the name of this package. The
registries below are children of MMEngine's root registries and contain the components of this package. ``TResNet`` is
registered in MMEngine's root, so MMDetection and all other children of the root build the same class.
"""

import inspect
from collections.abc import Callable

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import FUNCTIONS as ROOT_FUNCTIONS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOG_PROCESSORS as ROOT_LOG_PROCESSORS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as ROOT_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as ROOT_PARAM_SCHEDULERS
from mmengine.registry import RUNNERS as ROOT_RUNNERS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry
from torch import nn

from tresnet_downstream.scope import SCOPE as SCOPE


def _child(parent: Registry, *rooms: str) -> Registry:
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=[f"{SCOPE}.{room}" for room in rooms])


MODELS = _child(ROOT_MODELS, "backbones", "classification")
DATASETS = _child(ROOT_DATASETS, "classification")
DATA_SAMPLERS = _child(ROOT_DATA_SAMPLERS, "classification")
FUNCTIONS = _child(ROOT_FUNCTIONS, "classification")
TRANSFORMS = _child(ROOT_TRANSFORMS, "classification")
METRICS = _child(ROOT_METRICS, "classification")
LOOPS = _child(ROOT_LOOPS, "running.loops", "classification.loops")
HOOKS = _child(
    ROOT_HOOKS,
    *("running.hooks", "running.checkpoints", "running.early_stopping", "running.progress", "running.rates"),
    "running.validation",
)
LOG_PROCESSORS = _child(ROOT_LOG_PROCESSORS, "running.mean_losses")
OPTIMIZERS = _child(ROOT_OPTIMIZERS, "running.optimisation")
OPTIM_WRAPPERS = _child(ROOT_OPTIM_WRAPPERS, "running.optimisation")
OPTIM_WRAPPER_CONSTRUCTORS = _child(ROOT_OPTIM_WRAPPER_CONSTRUCTORS, "running.optimisation")
PARAM_SCHEDULERS = _child(ROOT_PARAM_SCHEDULERS, "running.optimisation")
# Detectors' configs import the module of their runner, which needs MMDetection.
RUNNERS = _child(ROOT_RUNNERS)


def takes_argument(component: Callable[..., object], name: str) -> bool:
    """Whether a registered class or function accepts an argument, by name or by ``**kwargs``.

    Examples:
        >>> takes_argument(nn.Linear, "bias"), takes_argument(nn.Linear, "size")
        (True, False)
    """
    if getattr(component, "__init__", None) is nn.Module.__init__:
        return False  # its **kwargs are refused
    parameters = inspect.signature(component).parameters
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
