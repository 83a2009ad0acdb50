"""The interface of trackers, and the delivery of records, in which a failing tracker does not end the training."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.running.trackers.journal import Record
from tresnet_downstream.running.trackers.settings import MLFLOW, TENSORBOARD, TrackerSetting

FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"
SECONDS_BETWEEN_TRIES = 300.0


@dataclass(frozen=True)
class TrackedRun:
    """The run that is logged.

    Attributes:
        run_id: content of the file ``run_id`` in its folder.
        folder: the run folder.
    """

    run_id: str
    folder: Path


class Tracker(Protocol):
    """The interface of a tracker. Every method may raise any exception of its package."""

    name: str

    def connect(self) -> None:
        """Checks that the tracker can be reached; changes nothing there."""

    def open(self, run: TrackedRun, records: Sequence[Record]) -> None:
        """Opens the run with this id, or creates it, and sends the records that it lacks."""

    def send(self, record: Record) -> None:
        """Sends a record; sending a record again has no effect."""

    def close(self, status: str) -> None:
        """Ends the run as ``finished``, ``failed`` or ``stopped``."""


class Delivery:
    """Sends records to a tracker. If the tracker fails, one warning is printed and the records are sent later.

    Args:
        tracker: a tracker that has been opened.
        advice: text for the warning: how the missing records can be sent.
    """

    def __init__(self, tracker: Tracker, advice: str) -> None:
        self.tracker, self.advice = tracker, advice
        self.waiting: list[Record] = []
        self.failed: float | None = None
        self.is_told = False

    def send(self, record: Record) -> None:
        """Sends a record and all waiting records; after a failure, only every `SECONDS_BETWEEN_TRIES`."""
        self.waiting.append(record)
        if self.failed is None or time.monotonic() - self.failed >= SECONDS_BETWEEN_TRIES:
            self._try()

    def close(self, status: str) -> None:
        """Tries to send the waiting records, and ends the run."""
        self._try()
        try:
            self.tracker.close(status)
        except Exception as error:  # any exception of the package
            self._tell(error)

    def _try(self) -> None:
        try:
            while self.waiting:
                self.tracker.send(self.waiting[0])
                self.waiting.pop(0)
            self.failed = None
        except Exception as error:  # any exception of the package
            self.failed = time.monotonic()
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self.is_told:
            self.is_told = True
            tell(f"warning: {self.tracker.name} does not respond ({reason(error)}); {self.advice}")


def connected(settings: Sequence[TrackerSetting], folder: str | Path) -> list[Tracker]:
    """Connects to the trackers of a config, except TensorBoard.

    Args:
        settings: from :func:`tracker_settings`.
        folder: the run folder.

    Raises:
        UserError: if a tracker cannot be reached.
    """
    trackers = [_built(setting, Path(folder)) for setting in settings if setting["type"] != TENSORBOARD]
    for tracker in trackers:
        with_reason(tracker, tracker.connect)
    return trackers


def with_reason(tracker: Tracker, action: Callable[..., object], *arguments: object) -> None:
    """Calls a method of a tracker before a training.

    Raises:
        UserError: if the method raises an exception; the message has it in one line.
    """
    try:
        action(*arguments)
    except UserError:
        raise
    except Exception as error:  # any exception of the package
        raise UserError(
            f"tracker: {tracker.name} cannot be reached ({reason(error)}); fix the cause, or set tracker=None"
        ) from error


def reason(error: Exception) -> str:
    """The message of a package's exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:200]} ..." if len(text) > 200 else text


def _built(setting: TrackerSetting, folder: Path) -> Tracker:
    # Imported here because the packages take a second to import.
    if setting["type"] == MLFLOW:
        from tresnet_downstream.running.trackers.mlflow_run import MlflowRun

        return MlflowRun(setting, folder)
    from tresnet_downstream.running.trackers.wandb_run import WandbRun

    return WandbRun(setting, folder)
