"""From a config to a running training."""

from tresnet_downstream.training import hooks, loops, optimisation  # noqa: F401 - registers components
from tresnet_downstream.training.config import load_config
from tresnet_downstream.training.runner import score_multilabel, train_multilabel

__all__ = ["load_config", "score_multilabel", "train_multilabel"]
