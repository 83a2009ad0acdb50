"""Tables of the images that a run leaves out, in its folder: ``left_out_train.csv`` and ``left_out_val.csv``."""

import csv
from collections.abc import Mapping
from pathlib import Path

from tresnet_downstream.evaluation.result_files import csv_text, write_files
from tresnet_downstream.interfaces import LeavesOut

_COLUMNS = ["image", "reason"]


def left_out_file(split: str) -> str:
    """The name of the file for ``train`` or ``val``."""
    return f"left_out_{split}.csv"


def write_left_out(folder: str | Path, name: str, reasons: Mapping[str, str]) -> None:
    """Writes a table ``image,reason``. If no image is left out, an earlier table is removed.

    Args:
        folder: folder of the table.
        name: file name of the table.
        reasons: the reason for each image, by image name.

    Raises:
        UserError: if the folder cannot be written to.
    """
    if not reasons:
        (Path(folder) / name).unlink(missing_ok=True)
        return
    rows = ({"image": image, "reason": reason} for image, reason in reasons.items())
    write_files(folder, {name: csv_text(_COLUMNS, rows)})


def read_left_out(folder: str | Path, name: str) -> dict[str, str]:
    """The reasons by image name that :func:`write_left_out` wrote; empty if there is no such file or it is damaged."""
    try:
        with (Path(folder) / name).open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
            return dict(rows) if header == _COLUMNS else {}
    except (OSError, ValueError, csv.Error):
        return {}  # not there, damaged, or not by this package


def left_out_of(dataset: object) -> dict[str, str]:
    """The attribute ``left_out`` of a data set: reasons by image name. Empty for data sets without it."""
    if isinstance(dataset, LeavesOut):
        return dict(dataset.left_out)
    # Data sets that repeat, mix or concatenate others.
    parts = [dataset.dataset] if hasattr(dataset, "dataset") else getattr(dataset, "datasets", ())
    return {image: reason for part in parts for image, reason in left_out_of(part).items()}
