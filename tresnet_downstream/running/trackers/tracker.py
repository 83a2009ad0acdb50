"""What a tracker does, and how it is reached so that the training never depends on it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.running.trackers.journal import Record
from tresnet_downstream.running.trackers.settings import MLFLOW, TENSORBOARD

FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"
SECONDS_BETWEEN_TRIES = 300.0


@dataclass(frozen=True)
class TrackedRun:
    """The run that is logged.

    Attributes:
        run_id: from the file ``run_id`` of its folder.
        folder: where it writes.
    """

    run_id: str
    folder: Path


class Tracker(Protocol):
    """One tracker. Every method may raise whatever the package does."""

    name: str

    def connect(self) -> None:
        """Looks whether the tracker can be reached, and changes nothing there."""

    def open(self, run: TrackedRun, records: Sequence[Record]) -> None:
        """Opens the run with this id, or makes it, and sends the records that it lacks."""

    def send(self, record: Record) -> None:
        """Sends one more record; one that is there already has no effect."""

    def close(self, status: str) -> None:
        """Ends the run as ``finished``, ``failed`` or ``stopped``."""


class Delivery:
    """Brings records to a tracker; once a training runs, a tracker that fails is told of once and tried again later.

    Args:
        tracker: which has been opened.
        advice: what becomes of the records that a failing tracker lacks, for the message.
    """

    def __init__(self, tracker: Tracker, advice: str) -> None:
        self.tracker, self.advice = tracker, advice
        self.waiting: list[Record] = []
        self.failed: float | None = None
        self.is_told = False

    def send(self, record: Record) -> None:
        """Sends a record, and those that wait; after a failure only every `SECONDS_BETWEEN_TRIES`."""
        self.waiting.append(record)
        if self.failed is None or time.monotonic() - self.failed >= SECONDS_BETWEEN_TRIES:
            self._try()

    def close(self, status: str) -> None:
        """Tries once more to send what waits, and ends the run."""
        self._try()
        try:
            self.tracker.close(status)
        except Exception as error:  # whatever the package raises
            self._tell(error)

    def _try(self) -> None:
        try:
            while self.waiting:
                self.tracker.send(self.waiting[0])
                self.waiting.pop(0)
            self.failed = None
        except Exception as error:  # whatever the package raises
            self.failed = time.monotonic()
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self.is_told:
            self.is_told = True
            tell(f"warning: {self.tracker.name} does not answer ({reason(error)}); {self.advice}")


def connected(settings: Sequence[Mapping[str, Any]], folder: str | Path) -> list[Tracker]:
    """The trackers of a config but for TensorBoard, once each was reached.

    Args:
        settings: from :func:`tracker_settings`.
        folder: of the run.

    Raises:
        UserError: one cannot be reached.
    """
    trackers = [_built(setting, Path(folder)) for setting in settings if setting["type"] != TENSORBOARD]
    for tracker in trackers:
        with_reason(tracker, tracker.connect)
    return trackers


def with_reason(tracker: Tracker, action: Any, *arguments: Any) -> None:
    """Calls a method of a tracker before a training.

    Raises:
        UserError: whatever it raises, in one line.
    """
    try:
        action(*arguments)
    except UserError:
        raise
    except Exception as error:  # whatever the package raises: the training has nothing to do with it
        raise UserError(
            f"tracker: {tracker.name} cannot be reached ({reason(error)}); mend that, or set tracker=None"
        ) from error


def reason(error: Exception) -> str:
    """What an error of a package says, as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:200]} ..." if len(text) > 200 else text


def _built(setting: Mapping[str, Any], folder: Path) -> Tracker:
    # The packages take a second to import.
    if setting["type"] == MLFLOW:
        from tresnet_downstream.running.trackers.mlflow_run import MlflowRun

        return MlflowRun(setting, folder)
    from tresnet_downstream.running.trackers.wandb_run import WandbRun

    return WandbRun(setting, folder)
