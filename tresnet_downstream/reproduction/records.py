"""Records of stages as JSON files: scores with intervals, paired differences, training time, commit and hash."""

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
    """A score in percent with its 95% interval over images. ``low`` and ``high`` are None if there is no interval.

    Examples:
        >>> str(Value(61.54, low=60.2, high=62.9))
        '61.5 (60.2 to 62.9)'
        >>> str(Value(61.54))
        '61.5'
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" ({self.low:.1f} to {self.high:.1f})"
        return f"{self.value:.1f}{interval}"


@dataclass(frozen=True)
class Scored:
    """A training and its scores.

    Attributes:
        command: the command of the training. TINY_IMAGENET, VOC2007, LITE0 and OUT replace the paths of this machine.
        commit: commit of the toolkit at the start of the training.
        hours: hours of training, validation and scoring.
        scores: the scores, by their keys in a report's ``scores.json``.
        sha256: SHA-256 of the probabilities of all images, or of all boxes.
    """

    command: str
    commit: str
    hours: float
    scores: Mapping[str, Value]
    sha256: str


class Comparison(NamedTuple):
    """The paired difference of a score: the score of ``run`` minus the score of ``reference``."""

    run: str
    reference: str
    score: str
    difference: Value


@dataclass(frozen=True)
class Record:
    """The results of a stage.

    Attributes:
        stage: name of the stage.
        images: number of images on which each training was scored.
        hardware: processor, cores, threads of each training, and versions of packages.
        trainings: the trainings with their scores, by name.
        comparisons: paired differences with intervals.
    """

    stage: str
    images: int
    hardware: Mapping[str, str]
    trainings: Mapping[str, Scored]
    comparisons: tuple[Comparison, ...]

    def difference(self, run: str, reference: str, score: str) -> Value:
        """Returns the score of ``run`` minus the score of ``reference``. The record must contain this comparison."""
        return next(
            each.difference
            for each in self.comparisons
            if (each.run, each.reference, each.score) == (run, reference, score)
        )


def write(record: Record, folder: str | Path) -> Path:
    """Writes a record to ``folder/STAGE.json``. The folder is created if it does not exist.

    Returns:
        The path of the file.

    Examples:
        >>> path = write(Record("pretraining", 1000, {}, {}, ()), "records")
        >>> path.as_posix(), read(path).images
        ('records/pretraining.json', 1000)
    """
    path = Path(folder) / f"{record.stage}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "version": VERSION, **asdict(record)}
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read(path: str | Path) -> Record:
    """Reads a record that :func:`write` wrote.

    Raises:
        UserError: if the file is damaged, not a record, or a record of another version.
    """
    path = Path(path)
    content = parse_json(path.read_bytes(), path)
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise UserError(f"{path}: is not a record of a reproduction, or has another version")
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
    """Describes this machine.

    Args:
        threads: number of threads of each training.

    Returns:
        The processor, the number of cores, ``threads``, and the versions of packages.

    Examples:
        >>> hardware(threads=2)["threads"]
        '2'
    """
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
    """The commit of the toolkit. ``+`` is appended if tracked files have changes.

    Returns:
        The first 12 digits of the commit's hash; or the version of the package if it is not in a git checkout.
    """
    folder = Path(__file__).resolve().parent
    outputs = []
    for arguments in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            completed = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return __version__
        outputs.append(completed.stdout.strip())
    head, changes = outputs
    return head + ("+" if changes else "")
