"""MMEngine's log writers: TensorBoard's is added by the key ``tracker``, and errors of the others take one line."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend, Visualizer

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.trackers.settings import TENSORBOARD, TrackerSetting


def with_tensorboard(visualizer: Mapping[str, Any], trackers: Sequence[TrackerSetting]) -> dict[str, object]:
    """The config of a visualizer, with TensorBoard's writer added if a tracker names TensorBoard.

    Args:
        visualizer: config of the visualizer; it is not modified.
        trackers: from :func:`tracker_settings`.
    """
    backends = list(visualizer.get("vis_backends") or [])
    is_there = any(_name(backend) == TensorboardVisBackend.__name__ for backend in backends)
    if not is_there and any(tracker["type"] == TENSORBOARD for tracker in trackers):
        backends.append({"type": f"mmengine.{TensorboardVisBackend.__name__}"})
    return {**visualizer, "vis_backends": backends}


def start_writers(visualizer: Visualizer) -> None:
    """Starts the log writers of other packages in the first process, before training or scoring.

    Raises:
        UserError: if a writer cannot start, for example because the user is not logged in.
    """
    if not is_main_process():
        return
    for backend in visualizer._vis_backends.values():
        if isinstance(backend, LocalVisBackend | TensorboardVisBackend):
            continue
        try:
            _ = backend.experiment  # MMEngine starts a writer at its first use
        except Exception as error:
            # The package may raise any exception.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"visualizer: {type(backend).__name__} cannot start ({reason}); fix the cause, or remove it "
                "from visualizer.vis_backends (for wandb and mlflow, use the key tracker)"
            ) from error


def _name(backend: object) -> str:
    kind = backend.get("type") if isinstance(backend, Mapping) else None
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
