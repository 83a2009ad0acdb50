"""The four tasks, and the task of a config."""

from typing import TYPE_CHECKING, NamedTuple

from tresnet_downstream.errors import UserError
from tresnet_downstream.scope import SCOPE

if TYPE_CHECKING:
    from mmengine.config import Config


class Task(NamedTuple):
    """The names of a task in messages and scripts."""

    network: str  # the trained network, with its article
    scripts: str  # NAME in train_NAME.py and test_NAME.py


MULTILABEL, CLASSIFIER, DETECTION, JOINT = "multilabel", "classifier", "detection", "joint"
TASKS = {
    MULTILABEL: Task("a multi-label classifier", "multilabel"),
    CLASSIFIER: Task("a classifier with one label per image", "classifier"),
    DETECTION: Task("a detector", "detection"),
    JOINT: Task("a joint model (labels and boxes)", "joint"),
}
CLASSIFIERS = (MULTILABEL, CLASSIFIER)
DETECTORS = (DETECTION, JOINT)


def task_of(config: "Config") -> str:
    """The task of a config: a key of :data:`TASKS`.

    Args:
        config: a config of MMEngine; its references may be unresolved.

    Examples:
        >>> task_of({"model": {"multi_label": False}})
        'classifier'
    """
    if str(config.get("runner_type", "")).rpartition(".")[2] == "JointRunner":
        return JOINT
    if config.get("default_scope", SCOPE) != SCOPE:
        return DETECTION
    return MULTILABEL if config.get("model", {}).get("multi_label", True) else CLASSIFIER


def require_task(config: "Config", task: str | None, verb: str) -> str:
    """The task of a config, which must be the script's task.

    Args:
        config: a config of MMEngine.
        task: task of the script; None accepts any.
        verb: ``train`` or ``test``.

    Raises:
        UserError: if the config is of another task.
    """
    actual = task_of(config)
    if task is not None and actual != task:
        name, scripts = TASKS[actual]
        raise UserError(f"{config.filename}: is for {name}; use tools/{verb}_{scripts}.py")
    return actual
