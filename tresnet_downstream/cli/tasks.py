"""What a config trains: one of four tasks, each with its functions in the library."""

from typing import Any, NamedTuple

from tresnet_downstream.errors import UserError
from tresnet_downstream.scope import SCOPE


class Task(NamedTuple):
    """A task as messages and scripts name it."""

    network: str  # that it trains, with its article
    scripts: str  # the ending of its scripts: train_NAME.py and test_NAME.py


MULTILABEL, CLASSIFIER, DETECTION, JOINT = "multilabel", "classifier", "detection", "joint"
TASKS = {
    MULTILABEL: Task("a multi-label classifier", "multilabel"),
    CLASSIFIER: Task("a classifier with one label per image", "classifier"),
    DETECTION: Task("a detector", "detection"),
    JOINT: Task("a network for labels and boxes", "joint"),
}
CLASSIFIERS = (MULTILABEL, CLASSIFIER)
DETECTORS = (DETECTION, JOINT)


def task_of(config: Any) -> str:
    """The task of a config: a key of :data:`TASKS`.

    Args:
        config: a config of MMEngine; references may be unresolved.
    """
    if str(config.get("runner_type", "")).rpartition(".")[2] == "JointRunner":
        return JOINT
    if config.get("default_scope", SCOPE) != SCOPE:
        return DETECTION
    return MULTILABEL if config.get("model", {}).get("multi_label", True) else CLASSIFIER


def require_task(config: Any, task: str | None, verb: str) -> str:
    """The task of a config, which must be the one that a script is for.

    Args:
        config: a config of MMEngine.
        task: that of the script; None takes any.
        verb: ``train`` or ``test``.

    Raises:
        UserError: the config is of another task.
    """
    actual = task_of(config)
    if task is not None and actual != task:
        name, scripts = TASKS[actual]
        raise UserError(f"{config.filename}: is a config of {name}, for tools/{verb}_{scripts}.py")
    return actual
