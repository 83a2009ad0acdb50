"""The images that a training leaves out, by name, in its folder: ``left_out_train.csv`` and ``left_out_val.csv``."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tresnet_downstream.evaluation.result_files import csv_text, write_files

_COLUMNS = ["image", "reason"]


def left_out_file(split: str) -> str:
    """The name of the file for ``train`` or ``val``."""
    return f"left_out_{split}.csv"


def write_left_out(folder: str | Path, name: str, reasons: Mapping[str, str]) -> None:
    """Writes a table ``image,reason``, or removes one of before where no image is left out.

    Args:
        folder: where to write.
        name: of the file.
        reasons: why each image is left out, by its name.

    Raises:
        UserError: the folder cannot be written to.
    """
    if not reasons:
        (Path(folder) / name).unlink(missing_ok=True)
        return
    rows = ({"image": image, "reason": reason} for image, reason in reasons.items())
    write_files(folder, {name: csv_text(_COLUMNS, rows)})


def read_left_out(folder: str | Path, name: str) -> dict[str, str]:
    """Why each image is left out, by its name, as :func:`write_left_out` wrote it; empty if there is no such file."""
    try:
        with (Path(folder) / name).open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
            return dict(rows) if header == _COLUMNS else {}
    except (OSError, ValueError, csv.Error):
        return {}  # not there, damaged, or not by this package


def left_out_of(dataset: Any) -> dict[str, str]:
    """Why a data set leaves images out, by name, as its attribute ``left_out`` says; empty for those without one."""
    if hasattr(dataset, "left_out"):
        return dict(dataset.left_out)
    # What repeats, mixes or joins the images of others.
    parts = [dataset.dataset] if hasattr(dataset, "dataset") else getattr(dataset, "datasets", ())
    return {image: reason for part in parts for image, reason in left_out_of(part).items()}
