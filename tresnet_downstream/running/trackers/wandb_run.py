"""A run in Weights & Biases, with the run id of the folder."""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tresnet_downstream.notices import tell
from tresnet_downstream.running.trackers.journal import CONFIG, RESULTS, TRAIN, VAL, Record
from tresnet_downstream.running.trackers.settings import TrackerSetting
from tresnet_downstream.running.trackers.tracker import FINISHED, TrackedRun

PROJECT = "tresnet-downstream"


class WandbRun:
    """Writes a run with the package ``wandb``.

    W&B requires increasing step numbers and drops values with a smaller one. The numbers of the journal's records are
    used, so the server's last step shows which records it has. Charts use ``step``, the optimiser steps, and ``epoch``.

    Args:
        setting: the arguments of ``wandb.init`` that are set.
        folder: the run folder, in which W&B stores its files unless the environment variable ``WANDB_DIR`` is set.
    """

    name = "wandb"

    def __init__(self, setting: TrackerSetting, folder: Path) -> None:
        self.setting = {key: value for key, value in setting.items() if key != "type"}
        self.folder = folder.resolve()
        self.run: Any = None

    @property
    def mode(self) -> str:
        """The mode of wandb, such as ``online`` or ``offline``; the config takes precedence over the environment."""
        return str(self.setting.get("mode") or _wandb().setup().settings.mode)

    def connect(self) -> None:
        """Logs in with the user's stored key, if the mode requires it."""
        if self.mode not in ("offline", "dryrun", "disabled"):
            _wandb().login(verify=True)

    def open(self, run: TrackedRun, records: Sequence[Record]) -> None:
        """Opens or creates the run, and logs the records that the server lacks."""
        is_online = self.mode not in ("offline", "dryrun", "disabled")
        directory = Path(os.environ.get("WANDB_DIR") or self.folder)
        if not is_online:
            self._set_aside(directory, run.run_id)
        defaults = {"name": self.folder.name}
        if "WANDB_PROJECT" not in os.environ:
            defaults["project"] = PROJECT
        self.run = _wandb().init(
            **{**defaults, **self.setting},
            id=run.run_id,
            dir=str(directory),
            resume="allow" if is_online else None,
            settings=_wandb().Settings(console="off"),
        )
        for place in ("step", "epoch"):
            self.run.define_metric(place, hidden=True)
        for kind in ("train", "val"):
            self.run.define_metric(f"{kind}/*", step_metric="step")
        first = self.run.step if is_online else 0
        for record in records:
            if record.kind not in (TRAIN, VAL) or record.number >= first:
                self.send(record)

    @staticmethod
    def _set_aside(directory: Path, run_id: str) -> None:
        """Moves the run's earlier offline files to ``wandb/replaced``; the new file contains the whole run.

        The file of a killed process lacks its last records, and W&B cannot continue it.
        """
        for path in sorted(directory.glob(f"wandb/offline-run-*-{run_id}")):
            replaced = path.parent / "replaced"
            replaced.mkdir(exist_ok=True)
            target, number = replaced / path.name, 1
            while os.path.lexists(target):
                target, number = replaced / f"{path.name}_{number}", number + 1
            path.rename(target)
            tell(f"wandb: the new offline file contains the whole run; the earlier one was moved to {target}")

    def send(self, record: Record) -> None:
        """Logs one record."""
        if record.kind == CONFIG:
            self.run.config.update(record.facts, allow_val_change=True)
            return
        if record.kind == RESULTS:
            self.run.summary.update({**record.scalars, **record.facts})
            for name, path in record.files.items():
                self._send_files(name, Path(path))
            return
        scalars = {f"{record.kind}/{name}": value for name, value in record.scalars.items()}
        self.run.log({**scalars, "step": record.step, "epoch": record.place}, step=record.number)

    def _send_files(self, name: str, path: Path) -> None:
        if not path.exists():
            return
        artifact = _wandb().Artifact(f"{name}-{self.run.id}", type=name)
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def close(self, status: str) -> None:
        """Ends the run."""
        self.run.finish(exit_code=0 if status == FINISHED else 1)


def _wandb() -> ModuleType:
    return import_module("wandb")  # takes a second
