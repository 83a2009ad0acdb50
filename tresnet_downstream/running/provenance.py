"""Provenance of a score: model, weights, config, data, date, versions, command."""

import hashlib
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tresnet_downstream.version import __version__

PACKAGES = ("torch", "torchvision", "mmengine", "mmdet", "numpy", "pycocotools")


def provenance(
    config: Config, checkpoint: str | Path, annotation_file: str | Path, weights: str | None = None
) -> dict[str, object]:
    """Provenance of a run that has just been scored, as plain data.

    Args:
        config: the config of the run, with options merged.
        checkpoint: path of the checkpoint.
        annotation_file: path of the ground truth.
        weights: ``raw`` or ``averaged``, if the checkpoint has both.
    """
    return {
        "model": without_start(config.model),
        "checkpoint": str(checkpoint),
        **({"weights": weights} if weights else {}),
        "checkpoint_sha256": _sha256(checkpoint),
        "config": str(config.filename),
        "data": str(annotation_file),
        **({"data_sha256": _sha256(annotation_file)} if Path(annotation_file).is_file() else {}),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": _versions(),
        "command": shlex.join(["python", *sys.argv]),
    }


def without_start(model: Any) -> Any:
    """The config of a model as plain data, without ``init_cfg`` and ``pretrained``.

    Examples:
        >>> without_start({"type": "TResNet", "pretrained": "tresnet_m", "layers": [3, 4]})
        {'type': 'TResNet', 'layers': [3, 4]}
    """
    if isinstance(model, Mapping):
        return {key: without_start(value) for key, value in model.items() if key not in ("init_cfg", "pretrained")}
    return type(model)(without_start(item) for item in model) if isinstance(model, list | tuple) else model


def _sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"tresnet-downstream": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
