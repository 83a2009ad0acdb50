"""Writes a CSV file of images in class folders: a number of images of each of the chosen classes."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tresnet_downstream.command_line import run
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_result
from tresnet_downstream.formats import read_class_folders


def table(folder: str, first: int, last: int, per_class: int | None, seed: int) -> str:
    """A table of ``path,label`` for the classes from ``first`` up to, not including, ``last`` in the order of names.

    Args:
        folder: it holds a folder of images for each class.
        first: the first class's position, from 0.
        last: one more than that of the last class.
        per_class: how many images of each class, drawn without replacement; None for all.
        seed: of the draws.

    Raises:
        UserError: the folder cannot be read, has not as many classes, or a class not as many images.
    """
    images = read_class_folders(folder)
    if not 0 <= first < last <= len(images.classes):
        raise UserError(f"{folder}: has {len(images.classes)} classes, of which {first}:{last} is no choice")
    draw = np.random.default_rng(seed)
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["path", "label"])
    for number in range(first, last):
        there = np.flatnonzero(images.class_of == number)
        if per_class is not None and per_class > len(there):
            name = images.classes[number]
            raise UserError(f"{folder}: the class {name!r} has {len(there)} images, not {per_class}")
        chosen = there if per_class is None else np.sort(draw.choice(there, per_class, replace=False))
        rows.writerows([images.names[place], images.classes[number]] for place in chosen)
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="folder with a subfolder of images for each class")
    parser.add_argument("out", type=Path, help=".csv file to write; an existing file is moved to earlier_N")
    parser.add_argument(
        "--classes", default=None, metavar="FIRST:LAST", help="range of classes, such as 0:100 (default: all)"
    )
    parser.add_argument("--per-class", type=int, help="number of images of each class (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of images")
    given = parser.parse_args(arguments)
    first, last = _range(given.classes, given.folder)
    text = table(given.folder, first, last, given.per_class, given.seed)
    with whole_result(given.out) as partial:
        partial.write_text(text)
    print(f"{given.out}: {text.count(chr(10)) - 1:,} images of {last - first} classes")


def _range(text: str | None, folder: str) -> tuple[int, int]:
    if text is None:
        return 0, len(read_class_folders(folder).classes)
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise UserError(f"--classes {text}: write FIRST:LAST, such as 0:100")
    return int(first), int(last)


if __name__ == "__main__":
    sys.exit(run(main))
