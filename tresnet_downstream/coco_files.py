"""COCO's ``instances`` files: read once, checked, with images and classes by position."""

import contextlib
import json
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import open_regular
from tresnet_downstream.json_reading import parse_json

File: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class CocoFile:
    """What an ``instances`` file says.

    Attributes:
        content: the file as it is: ``images``, ``annotations``, ``categories`` and what else it has.
        names: the images' file names, in the order of ``images``.
        classes: the categories' names, by category id.
        category_ids: those ids, ascending, int64.
        image_of: for each annotation the position of its image, int64.
        class_of: for each annotation the position of its class in ``classes``, int64.
        unknown: whether each annotation leaves open that the image shows the class, bool.
    """

    content: dict[str, Any]
    names: list[str]
    classes: tuple[str, ...]
    category_ids: np.ndarray
    image_of: np.ndarray
    class_of: np.ndarray
    unknown: np.ndarray


def read_coco_file(file: File, labelled: bool = True) -> CocoFile:
    """Reads a COCO ``instances`` file and checks that its parts refer to one another.

    Args:
        file: the JSON file.
        labelled: whether it must list annotations; without, their list is empty.

    Raises:
        UserError: the file is missing, malformed, no instances file, contradicts itself, or lists an image twice.
    """
    content = parse_json(read_text(file), file)
    if isinstance(content, dict) and not labelled:
        content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file}: not a COCO instances file, which has a list of `{key}`")
    images, annotations, categories = content["images"], content["annotations"], content["categories"]

    image_ids = whole_numbers(file, "images", images, "id")
    category_ids = whole_numbers(file, "categories", categories, "id")
    refuse_duplicates(file, "image id", image_ids.tolist())
    refuse_duplicates(file, "category id", category_ids.tolist())
    by_id = np.argsort(category_ids)
    category_names = _texts(file, "categories", categories, "name")
    refuse_duplicates(file, "category name", category_names)

    names = _texts(file, "images", images, "file_name")
    refuse_repeated_images(file, names)

    image_of, known_images = _positions(image_ids, whole_numbers(file, "annotations", annotations, "image_id"))
    class_of, known_categories = _positions(
        category_ids[by_id], whole_numbers(file, "annotations", annotations, "category_id")
    )
    known = known_images & known_categories
    if not known.all():
        wrong = int(np.argmin(known))
        image, category = annotations[wrong]["image_id"], annotations[wrong]["category_id"]
        lacking = f"category {category}" if known_images[wrong] else f"image {image}"
        name = f"annotation {annotations[wrong].get('id', f'at position {wrong}')}"
        raise UserError(f"{file}: {name} (image_id {image}, category_id {category}): there is no {lacking}")
    return CocoFile(
        content=content,
        names=names,
        classes=tuple(category_names[place] for place in by_id),
        category_ids=category_ids[by_id],
        image_of=image_of,
        class_of=class_of,
        unknown=np.zeros(len(class_of), bool),
    )


def read_coco_classes(file: File) -> tuple[str, ...]:
    """The categories' names, by category id, of a COCO file of which the rest is not read.

    Raises:
        UserError: the file cannot be read or has no list of categories.
    """
    text, decoder, place = read_text(file), json.JSONDecoder(), 0
    while (place := text.find('"categories"', place)) >= 0:
        place += len('"categories"')
        if start := re.compile(r"\s*:\s*").match(text, place):
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                categories, _ = decoder.raw_decode(text, start.end())
                return tuple(category["name"] for category in sorted(categories, key=lambda given: given["id"]))
    raise UserError(f"{file}: not a COCO instances file, which has a list of `categories`")


def read_text(file: File) -> str:
    """The text of a UTF-8 file, with or without byte order mark.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: not UTF-8 in line {line}; save it in that encoding") from error


def _column(file: File, part: str, records: list[Any], key: str) -> list[Any]:
    try:
        return [record[key] for record in records]
    except (KeyError, TypeError, IndexError):
        lacking = (not isinstance(record, dict) or key not in record for record in records)
        raise UserError(f"{file}: entry {list(lacking).index(True)} of `{part}` has no `{key}`") from None


def whole_numbers(file: File, part: str, records: list[Any], key: str) -> np.ndarray:
    """One key of all records of a part of the file, int64.

    Raises:
        UserError: a record lacks the key, or has something else there than a whole number.
    """
    column = _column(file, part, records, key)
    for value in column:
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise UserError(f"{file}: a `{key}` in `{part}` is {value!r}, not a whole number")
    return np.array(column, np.int64)


def _texts(file: File, part: str, records: list[Any], key: str) -> list[str]:
    column = _column(file, part, records, key)
    for value in column:
        if not isinstance(value, str) or not value:
            raise UserError(f"{file}: a `{key}` in `{part}` is {value!r}, not a name")
    return column


def refuse_duplicates(file: File, what: str, values: Sequence[Any]) -> None:
    """Raises UserError, which calls a value ``what``, if one of them is there twice."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{file}: the {what} {value!r} is there twice")
        seen.add(value)


def same_file_name(name: str) -> str:
    """One spelling for all names of a file: ``./a.jpg`` and ``b/../a.jpg`` become ``a.jpg``."""
    return posixpath.normpath(name) if "/" in name else name


def refuse_repeated_images(file: File, names: Sequence[str]) -> None:
    """Raises UserError if an image is there twice, also under two spellings of its path."""
    first: dict[str, str] = {}
    for name in names:
        before = first.setdefault(same_file_name(name), name)
        if before != name:
            raise UserError(f"{file}: the file_names {before!r} and {name!r} are the same image; list it once")
    refuse_duplicates(file, "file_name", names)


def _positions(known: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give where each of ``ids`` stands in ``known``, and whether it stands there at all."""
    if not len(known):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    order = np.argsort(known)
    places = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
    return places, known[places] == ids
