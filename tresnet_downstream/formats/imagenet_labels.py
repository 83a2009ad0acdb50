"""Reads the ground truth of ImageNet's validation images, for images that are in one folder."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.errors import UserError
from tresnet_downstream.text_files import File, read_text, refuse_duplicates

NUM_CLASSES = 1000
_WORDNET = re.compile(r"n\d{8}")
FORMS = (
    "a line for each image with its WordNet number (in the order of the images' names), lines of NAME NUMBER or NAME "
    "WORDNET, or LOC_val_solution.csv"
)


def read_imagenet_labels(file: File, images: Sequence[str]) -> list[int]:
    """Reads the class index of each image. Classes are numbered from 0 in the order of their WordNet numbers.

    Args:
        file: the ground truth, in one of the forms in `FORMS`.
        images: the names of the images, in alphabetical order.

    Raises:
        UserError: if the file has another form, has labels for another number of images, or does not name an image.

    Examples:
        >>> _ = Path("labels.txt").write_text("a.jpg 3")
        >>> read_imagenet_labels("labels.txt", ["a.jpg"])
        [3]
    """
    rows = _rows(file)
    if all(len(row) == 1 for row in rows):
        if len(rows) != len(images):
            raise UserError(f"{file}: has {len(rows):,} labels for {len(images):,} images")
        if all(row[0].isdecimal() for row in rows):
            raise UserError(
                f"{file}: has the numbers of ImageNet's development kit, which do not follow the WordNet numbers; "
                f"give {FORMS}"
            )
        labels = [row[0] for row in rows]
    else:
        pairs = [(Path(row[0]).stem, row[1]) for row in rows if len(row) == 2]
        refuse_duplicates(file, "image", [name for name, _ in pairs])
        by_name = dict(pairs)
        missing = [name for name in images if Path(name).stem not in by_name]
        if missing:
            raise UserError(f"{file}: has no label of {len(missing):,} images, such as {missing[0]!r}; give {FORMS}")
        labels = [by_name[Path(name).stem] for name in images]
    return _numbers(file, labels)


def _rows(file: File) -> list[list[str]]:
    lines = [line for line in read_text(file).splitlines() if line.strip()]
    if lines and lines[0].startswith("ImageId,"):  # Kaggle's file: class and box of each object
        try:
            cells = list(csv.reader(io.StringIO("\n".join(lines[1:]))))
        except csv.Error as error:
            raise UserError(f"{file}: is not a CSV file ({error})") from error
        rows = [[row[0], *row[1].split()[:1]] for row in cells if len(row) > 1]
    else:
        rows = [re.split(r"[\s,]+", line.strip()) for line in lines]
    if not rows or any(len(row) > 2 for row in rows):
        raise UserError(f"{file}: is not a ground truth of ImageNet; give {FORMS}")
    return rows


def _numbers(file: File, labels: Sequence[str]) -> list[int]:
    if all(label.isdecimal() and len(label) < 5 for label in labels):
        numbers = [int(label) for label in labels]
        if max(numbers) >= NUM_CLASSES:
            raise UserError(f"{file}: has the number {max(numbers)}; classes are numbered from 0 to {NUM_CLASSES - 1}")
        return numbers
    wrong = next((label for label in labels if not _WORDNET.fullmatch(label)), None)
    if wrong is not None:
        raise UserError(f"{file}: has the label {wrong[:40]!r}, which is not a WordNet number such as n01440764")
    place = {label: number for number, label in enumerate(_wordnet_numbers(file, set(labels)))}
    return [place[label] for label in labels]


def _wordnet_numbers(file: File, labels: set[str]) -> list[str]:
    """The sorted WordNet numbers of ImageNet-1k: the labels of the file if it has all, otherwise those in timm."""
    if len(labels) == NUM_CLASSES:
        return sorted(labels)
    try:
        from timm.data import ImageNetInfo
    except ImportError as error:
        raise UserError(
            f"{file}: has {len(labels)} of ImageNet's {NUM_CLASSES} classes, and only timm has a list of the others: "
            "pip install 'tresnet-downstream[timm]'"
        ) from error
    known = list(ImageNetInfo().label_names())
    if foreign := labels - set(known):
        raise UserError(f"{file}: has {len(foreign)} classes that are not among ImageNet's, such as {min(foreign)}")
    return known
