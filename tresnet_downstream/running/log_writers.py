"""MMEngine's writers of logs that other packages bring: where MLflow keeps its runs, and errors in one line."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend, Visualizer

from tresnet_downstream.errors import UserError

MLFLOW = "MLflowVisBackend"
DATABASE, ARTIFACTS = "mlflow.db", "mlflow_artifacts"


def with_mlflow_store(visualizer: Mapping[str, Any], work_dir: str | Path) -> dict[str, Any]:
    """The config of a visualizer in which every ``MLflowVisBackend`` says where MLflow keeps its runs.

    Without ``tracking_uri`` MMEngine takes a folder of files, which MLflow 3 refuses, and overrides the environment's
    ``MLFLOW_TRACKING_URI``. Here it is the environment's, or else a database in the run folder.

    Args:
        visualizer: the config, which stays as it is.
        work_dir: the run folder.
    """
    folder = Path(work_dir).resolve()
    from_environment = os.environ.get("MLFLOW_TRACKING_URI")
    store = {"tracking_uri": from_environment}
    if not from_environment:
        # A name of its own: the files of MLflow's experiment "Default" go to where the command is typed.
        store = {
            "tracking_uri": f"sqlite:///{folder / DATABASE}",
            "exp_name": folder.name,
            "artifact_location": (folder / ARTIFACTS).as_uri(),
        }
    backends = [
        {**store, **backend} if _name(backend) == MLFLOW and "tracking_uri" not in backend else backend
        for backend in visualizer.get("vis_backends") or []
    ]
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
                f"visualizer: {type(backend).__name__} cannot start ({reason}); mend that, or leave it out"
            ) from error


def _name(backend: Any) -> str:
    kind = backend.get("type") if isinstance(backend, Mapping) else None
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
