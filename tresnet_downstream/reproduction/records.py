"""What a stage measured, as a small JSON file: scores and intervals, paired differences, hours, commit, hash."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.version import __version__

FORMAT, VERSION = "tresnet_downstream.reproduction", 1
_PACKAGES = ("torch", "torchvision", "timm", "mmdet")


class Value(NamedTuple):
    """A score in percent, and the 95% interval over images; None at both ends without one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        span = "" if self.low is None else f" ({self.low:.1f} to {self.high:.1f})"
        return f"{self.value:.1f}{span}"


@dataclass(frozen=True)
class Scored:
    """A training and its scores.

    Attributes:
        command: that trained it, with TINY_IMAGENET, VOC2007, LITE0 and OUT in the place of folders.
        commit: of the toolkit when the training began.
        hours: of training, validation and scoring.
        scores: by their keys in a report's ``scores.json``.
        sha256: of the probabilities of all images, or of all boxes.
    """

    command: str
    commit: str
    hours: float
    scores: Mapping[str, Value]
    sha256: str


class Comparison(NamedTuple):
    """The paired difference of a score: ``run`` minus ``reference``."""

    run: str
    reference: str
    score: str
    difference: Value


@dataclass(frozen=True)
class Record:
    """All that a stage measured.

    Attributes:
        stage: its name.
        images: number of images that each training was scored on.
        hardware: processor, cores, threads of each training, versions of packages.
        trainings: by name.
        comparisons: with paired intervals.
    """

    stage: str
    images: int
    hardware: Mapping[str, str]
    trainings: Mapping[str, Scored]
    comparisons: tuple[Comparison, ...]

    def difference(self, run: str, reference: str, score: str) -> Value:
        """The difference of a pair."""
        return next(
            each.difference
            for each in self.comparisons
            if (each.run, each.reference, each.score) == (run, reference, score)
        )


def write(record: Record, folder: str | Path) -> Path:
    """Writes ``folder/STAGE.json``, and returns its path."""
    path = Path(folder) / f"{record.stage}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "version": VERSION, **asdict(record)}
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read(path: str | Path) -> Record:
    """What :func:`write` wrote.

    Raises:
        UserError: the file cannot be read, or is no record.
    """
    path = Path(path)
    content = parse_json(path.read_bytes(), path)
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise UserError(f"{path}: is no record of a reproduction, or of another version")
    try:
        trainings = {name: _scored(each) for name, each in content["trainings"].items()}
        comparisons = tuple(
            Comparison(run, reference, score, Value(*difference))
            for run, reference, score, difference in content["comparisons"]
        )
        return Record(content["stage"], content["images"], content["hardware"], trainings, comparisons)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({error})") from error


def _scored(content: Mapping[str, Any]) -> Scored:
    scores = {key: Value(*each) for key, each in content["scores"].items()}
    return Scored(**{**content, "scores": scores})


def hardware(threads: int) -> dict[str, str]:
    """The processor, its cores, the threads of each training and the versions of packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"tresnet-downstream": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"processor": _processor(), "cores": str(cores), "threads": str(threads), **versions}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the toolkit, with ``+`` after it if files were changed since; the version without a checkout."""
    folder = Path(__file__).resolve().parent
    answers = []
    for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return __version__
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")
