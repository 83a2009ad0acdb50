"""The key ``tracker`` of a config: the trackers that a run logs to, and their options."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypedDict, cast

from mmengine.config import Config

from tresnet_downstream.errors import UserError

TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"
# Options of each tracker besides `type`; everything else is set by the packages' environment variables.
OPTIONS: dict[str, tuple[str, ...]] = {
    TENSORBOARD: (),
    WANDB: ("project", "entity", "name", "group", "notes", "tags", "mode"),
    MLFLOW: ("tracking_uri", "experiment", "name", "tags"),
}
WANDB_MODES = ("online", "offline", "disabled")
_EXAMPLE = "dict(type='wandb', project='mine')"


class TrackerSetting(TypedDict, total=False):
    """A tracker of a config: its ``type`` and the options that are set.

    Attributes:
        type: name of the tracker; always there.
        project: project in W&B.
        entity: user or team in W&B.
        group: group of runs in W&B.
        notes: text about the run in W&B.
        mode: one of :data:`WANDB_MODES`.
        tracking_uri: URI of MLflow's store.
        experiment: experiment in MLflow.
        name: name of the run.
        tags: a list of strings for W&B, a dict of strings for MLflow.
    """

    type: str
    project: str
    entity: str
    group: str
    notes: str
    mode: str
    tracking_uri: str
    experiment: str
    name: str
    tags: Any


def tracker_settings(value: object) -> list[TrackerSetting]:
    """The trackers of a config, each as a dict with ``type`` and the options that are set.

    Args:
        value: the value of ``tracker``: a name, a dict with ``type`` and options, a list of these, or None.

    Raises:
        UserError: if a name or option is unknown, or a tracker is named twice.

    Examples:
        >>> tracker_settings(["tensorboard", {"type": "wandb", "mode": "offline"}])
        [{'type': 'tensorboard'}, {'type': 'wandb', 'mode': 'offline'}]
    """
    if value is None:
        return []
    trackers = [value] if isinstance(value, str | Mapping) or not isinstance(value, Sequence) else list(value)
    settings = [_setting(tracker) for tracker in trackers]
    kinds = [setting["type"] for setting in settings]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise UserError(f"tracker: names {twice} twice; name it once")
    return settings


def _setting(tracker: object) -> TrackerSetting:
    setting = {"type": tracker} if isinstance(tracker, str) else dict(tracker) if isinstance(tracker, Mapping) else {}
    kind = setting.get("type")
    if kind not in OPTIONS:
        names = ", ".join(map(repr, OPTIONS))
        raise UserError(f"tracker={tracker!r}: give {names}, {_EXAMPLE}, a list of these or None")
    if unknown := [key for key in setting if key not in ("type", *OPTIONS[kind])]:
        known = f"its options are {', '.join(OPTIONS[kind])}" if OPTIONS[kind] else "it has none"
        raise UserError(f"tracker: {kind} has no option {unknown[0]!r}; {known}")
    setting = {key: _checked(kind, key, option) for key, option in setting.items() if option is not None}
    if setting.get("mode", WANDB_MODES[0]) not in WANDB_MODES:
        raise UserError(f"tracker.mode={setting['mode']!r}: give {', '.join(map(repr, WANDB_MODES))}")
    return cast(TrackerSetting, setting)


def _checked(kind: str, key: str, value: object) -> str | list[str] | dict[str, str]:
    if key == "tags" and kind == WANDB:
        if isinstance(value, list | tuple) and all(isinstance(tag, str) for tag in value):
            return list(value)
        raise UserError(f"tracker.tags={value!r}: wandb needs a list of strings")
    if key == "tags":
        if isinstance(value, Mapping):
            return {str(name): str(tag) for name, tag in value.items()}
        raise UserError(f"tracker.tags={value!r}: mlflow needs a dict of strings")
    if not isinstance(value, str):
        raise UserError(f"tracker.{key}={value!r}: give a string")
    return value


def require_trackers(config: Config) -> list[TrackerSetting]:
    """Reads the key ``tracker``, and checks that the packages are installed.

    Raises:
        UserError: if the value is invalid, or a package is not installed.
    """
    settings = tracker_settings(config.get("tracker"))
    for setting in settings:
        if not is_installed(kind := setting["type"]):
            raise UserError(
                f"tracker={kind!r}: needs the package {kind}, which is not installed: "
                f"pip install 'tresnet-downstream[{kind}]', or set tracker=None"
            )
    return settings


def is_installed(package: str) -> bool:
    """Whether a package can be imported. A folder of its name without code, as some log writers leave, is ignored."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
