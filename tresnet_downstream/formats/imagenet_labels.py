"""The ground truth of ImageNet's validation images where they lie in one flat folder."""

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
    """The number of the class of each image, in the order of the WordNet numbers, from 0.

    Args:
        file: the ground truth, see `FORMS`.
        images: the images' names, in alphabetical order.

    Raises:
        UserError: the file is of none of these forms, of another number of images, or does not name an image.
    """
    rows = _rows(file)
    if all(len(row) == 1 for row in rows):
        if len(rows) != len(images):
            raise UserError(f"{file}: has {len(rows):,} labels for {len(images):,} images")
        if all(row[0].isdecimal() for row in rows):
            raise UserError(
                f"{file}: has numbers of ImageNet's own kit, which do not follow the WordNet numbers; give {FORMS}"
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
    if lines and lines[0].startswith("ImageId,"):  # Kaggle's: class and box, several times over
        try:
            cells = list(csv.reader(io.StringIO("\n".join(lines[1:]))))
        except csv.Error as error:
            raise UserError(f"{file}: is no table ({error})") from error
        rows = [[row[0], *row[1].split()[:1]] for row in cells if len(row) > 1]
    else:
        rows = [re.split(r"[\s,]+", line.strip()) for line in lines]
    if not rows or any(len(row) > 2 for row in rows):
        raise UserError(f"{file}: is no ground truth of ImageNet; give {FORMS}")
    return rows


def _numbers(file: File, labels: Sequence[str]) -> list[int]:
    if all(label.isdecimal() and len(label) < 5 for label in labels):
        numbers = [int(label) for label in labels]
        if max(numbers) >= NUM_CLASSES:
            raise UserError(f"{file}: has the number {max(numbers)}; classes are numbered from 0 to {NUM_CLASSES - 1}")
        return numbers
    wrong = next((label for label in labels if not _WORDNET.fullmatch(label)), None)
    if wrong is not None:
        raise UserError(f"{file}: has the label {wrong[:40]!r}, which is no WordNet number such as n01440764")
    place = {label: number for number, label in enumerate(_wordnet_numbers(file, set(labels)))}
    return [place[label] for label in labels]


def _wordnet_numbers(file: File, found: set[str]) -> list[str]:
    """The 1,000 of ImageNet-1k in their order: those of the file if it has all, otherwise from timm."""
    if len(found) == NUM_CLASSES:
        return sorted(found)
    try:
        from timm.data import ImageNetInfo
    except ImportError as error:
        raise UserError(
            f"{file}: has {len(found)} of ImageNet's {NUM_CLASSES} classes, and the others are known by timm alone: "
            "pip install 'tresnet-downstream[timm]'"
        ) from error
    known = list(ImageNetInfo().label_names())
    if foreign := found - set(known):
        raise UserError(f"{file}: has {len(foreign)} classes that are none of ImageNet's, such as {min(foreign)}")
    return known
