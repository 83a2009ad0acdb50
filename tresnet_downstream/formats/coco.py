"""Reads COCO's ``instances`` files and checks them."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.labelled_images import LabelledImages
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.text_files import File, read_text, refuse_duplicates, refuse_repeated_images


def read_coco_file(
    file: File, classes: Sequence[str] | None = None, others: bool = False, labelled: bool = True
) -> LabelledImages:
    """Reads a COCO ``instances`` file and checks that its ids are consistent.

    The images are in the order of the file, the classes in the order of the category ids.

    Args:
        file: the JSON file.
        classes: expected names of the categories, in order; None for those of the file.
        others: whether other categories than ``classes`` are allowed.
        labelled: whether the file must have a list of annotations. If not, a missing list counts as empty.

    Raises:
        UserError: if the file is missing, malformed or not an instances file, if its ids are inconsistent, if it lists
            an image twice, or if it has other classes.
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
        missing = f"category {category}" if known_images[wrong] else f"image {image}"
        name = f"annotation {annotations[wrong].get('id', f'at position {wrong}')}"
        raise UserError(f"{file}: {name} (image_id {image}, category_id {category}): there is no {missing}")
    names_of_classes = tuple(category_names[place] for place in by_id)
    if classes is not None and not others and tuple(classes) != names_of_classes:
        refuse_duplicates(file, "name in `classes`", classes)
        raise UserError(f"{file}: {class_difference(names_of_classes, tuple(classes))}")
    return LabelledImages(
        names=names,
        classes=names_of_classes,
        image_of=image_of,
        class_of=class_of,
        unknown=np.zeros(len(class_of), bool),
        difficult=np.zeros(len(class_of), bool),
        content=content,
    )


def read_coco_classes(file: File) -> tuple[str, ...]:
    """Reads only the category names of a COCO file, in the order of the category ids.

    Raises:
        UserError: if the file cannot be read or has no list of categories.
    """
    text, decoder, position = read_text(file), json.JSONDecoder(), 0
    while (position := text.find('"categories"', position)) >= 0:
        position += len('"categories"')
        if start := re.compile(r"\s*:\s*").match(text, position):
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                categories, _ = decoder.raw_decode(text, start.end())
                return tuple(category["name"] for category in sorted(categories, key=lambda entry: entry["id"]))
    raise UserError(f"{file}: not a COCO instances file, which has a list of `categories`")


def whole_numbers(file: File, part: str, records: Sequence[Mapping[str, object]], key: str) -> np.ndarray:
    """The integers under one key of all records, int64.

    Args:
        file: the file, for messages.
        part: the name of the list of records, for messages.
        records: the records.
        key: the key.

    Raises:
        UserError: if a record does not have the key, or its value is not an integer.
    """
    column = _column(file, part, records, key)
    for value in column:
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise UserError(f"{file}: a `{key}` in `{part}` is {value!r}, not a whole number")
    return np.array(column, np.int64)


def _column(file: File, part: str, records: Sequence[Mapping[str, object]], key: str) -> list[object]:
    try:
        return [record[key] for record in records]
    except (KeyError, TypeError, IndexError):
        is_missing = [not isinstance(record, dict) or key not in record for record in records]
        raise UserError(f"{file}: entry {is_missing.index(True)} of `{part}` has no `{key}`") from None


def _texts(file: File, part: str, records: Sequence[Mapping[str, object]], key: str) -> list[str]:
    names = []
    for value in _column(file, part, records, key):
        if not isinstance(value, str) or not value:
            raise UserError(f"{file}: a `{key}` in `{part}` is {value!r}, not a name")
        names.append(value)
    return names


def _positions(known: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The position of each of ``ids`` in ``known``, and whether it is there."""
    if not len(known):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    order = np.argsort(known)
    places = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
    return places, known[places] == ids


def class_difference(in_file: tuple[str, ...], expected: tuple[str, ...]) -> str:
    """Describes how the classes of a file differ from the expected ones, which are unique.

    Examples:
        >>> class_difference(("cat", "fox"), ("cat", "dog"))
        'its classes are not the 2 expected ones: it lacks 1 (dog) and adds 1 (fox)'
    """
    if set(in_file) == set(expected):
        place = [one == other for one, other in zip(in_file, expected, strict=True)].index(False)
        return f"the classes are in another order: class {place} is '{in_file[place]}', not '{expected[place]}'"
    missing = [name for name in expected if name not in in_file]
    foreign = [name for name in in_file if name not in expected]
    parts = [
        f"{verb} {len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for verb, names in (("lacks", missing), ("adds", foreign))
        if names
    ]
    return f"its classes are not the {len(expected)} expected ones: it {' and '.join(parts)}"
