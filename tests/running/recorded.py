"""Short configs, and the values of each training step: learning rates, gradients, and modes of modules."""

import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from running.small_data import CUSTOM, DIGITS
from running.test_mid_epoch import config_with

STEPS = []


@HOOKS.register_module(force=True)
class RecordedSteps(Hook):
    """Keeps the state of each step in :data:`STEPS`."""

    def before_train_iter(self, runner, *_, **__):
        names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
        groups = runner.optim_wrapper.optimizer.param_groups
        STEPS.append({"rates": {names[id(p)]: group["lr"] for group in groups for p in group["params"]}})

    def after_train_iter(self, runner, *_, **__):
        state, parameters = runner.optim_wrapper.optimizer.state, list(runner.model.named_parameters())
        STEPS[-1] |= {
            "trained": {name for name, parameter in parameters if parameter.requires_grad},
            "state": {name for name, parameter in parameters if state.get(parameter)},
            "training": {name for name, module in runner.model.named_modules() if module.training},
        }


def two_lines(folder, line, base=DIGITS, record=False):
    """A config that inherits one and sets one key; with ``record``, a further line names the hook above."""
    hook = "custom_hooks = [*_base_.get('custom_hooks', []), dict(type='mmengine.RecordedSteps')]\n" if record else ""
    path = folder / f"{len(list(folder.glob('*.py')))}_two_lines.py"
    path.write_text(f"_base_ = [{base!r}]\n{line}\n{hook}")
    return path


def interrupting(folder, batch, place, line):
    """A config as :func:`two_lines` writes it, whose training a signal ends after a batch."""
    path = config_with(folder, signal.SIGTERM, batch, place)
    path.write_text(f"{path.read_text().replace(CUSTOM, DIGITS)}{line}\n")
    return path
