"""MMEngine's writers of logs: TensorBoard's by the key ``tracker``, and errors of others in one line."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend, Visualizer

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.trackers.settings import TENSORBOARD


def with_tensorboard(visualizer: Mapping[str, Any], trackers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The config of a visualizer, with TensorBoard's writer where the trackers name it and it has none.

    Args:
        visualizer: the config, which stays as it is.
        trackers: from :func:`tracker_settings`.
    """
    backends = list(visualizer.get("vis_backends") or [])
    is_there = any(_name(backend) == TensorboardVisBackend.__name__ for backend in backends)
    if not is_there and any(tracker["type"] == TENSORBOARD for tracker in trackers):
        backends.append({"type": f"mmengine.{TensorboardVisBackend.__name__}"})
    return {**visualizer, "vis_backends": backends}


def start_writers(visualizer: Visualizer) -> None:
    """Starts the writers of other packages in the first process, before anything is trained or scored.

    Raises:
        UserError: if one cannot start, such as for want of a login.
    """
    if not is_main_process():
        return
    for backend in visualizer._vis_backends.values():
        if isinstance(backend, LocalVisBackend | TensorboardVisBackend):
            continue
        try:
            _ = backend.experiment  # MMEngine starts a writer where it is first used
        except Exception as error:
            # Whatever the package raises: the training has nothing to do with it.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"visualizer: {type(backend).__name__} cannot start ({reason}); mend that, or leave it out "
                "(the key tracker has 'wandb' and 'mlflow')"
            ) from error


def _name(backend: Any) -> str:
    kind = backend.get("type") if isinstance(backend, Mapping) else None
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
