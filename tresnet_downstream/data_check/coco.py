"""Reads a COCO ``instances`` file and collects all faults. The strict reader stops at the first fault."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from tresnet_downstream.coco_records import CocoAnnotation, CocoCategory, CocoImage, CocoInstances
from tresnet_downstream.coco_shapes import is_id
from tresnet_downstream.data_check.boxes import check_boxes
from tresnet_downstream.data_check.listing import ListedImage, Listing, Source, annotation_place
from tresnet_downstream.errors import UserError
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.limits import excess, limit
from tresnet_downstream.text_files import read_text, same_file_name


def list_coco(source: Source) -> Listing:
    """Lists the images of a COCO file; its faults become findings."""
    listing = Listing(source)
    content = _parsed(listing)
    if content is None:
        return listing
    listing.content = content
    categories = _categories(listing, content["categories"])
    images = _images(listing, content["images"])
    known = _annotations(listing, content["annotations"], images, categories)
    if source.task == "detection":
        check_boxes(listing, known, categories)
    listing.classes = tuple(categories[number] for number in sorted(categories))
    return listing


def _parsed(listing: Listing) -> CocoInstances | None:
    """The content of the file, whose records are not checked yet; None if it is not a COCO file."""
    source = listing.source
    try:
        content = parse_json(read_text(source.annotation_file), source.annotation_file)
    except UserError as error:
        listing.report_unreadable(error)
        return None
    if isinstance(content, dict) and not source.needs_labels:
        content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            text = f"not a COCO instances file, which has a list of `{key}`"
            listing.report("unreadable-file", "error", "", text)
            return None
    instances: CocoInstances = content
    return instances


def _categories(listing: Listing, records: Sequence[CocoCategory]) -> dict[int, str]:
    """The category names by id."""
    categories: dict[int, str] = {}
    for position, record in enumerate(records):
        place = f"categories[{position}]"
        if not _has_id(listing, record, "id", place) or not _has_name(listing, record, "name", place):
            continue
        number, name = record["id"], record["name"]
        if number in categories:
            listing.report("repeated-id", "error", f"category {number}", f"the category id {number} is used twice")
        elif name in categories.values():
            listing.report("repeated-id", "error", f"category {number}", f"the category name {name!r} is used twice")
            categories[number] = name
        else:
            categories[number] = name
    return categories


def _images(listing: Listing, records: Sequence[CocoImage]) -> dict[int, ListedImage]:
    """The images by id; all images with a name are listed."""
    images: dict[int, ListedImage] = {}
    names: dict[str, str] = {}
    detection = listing.source.task == "detection"
    for position, record in enumerate(records):
        place = f"images[{position}]"
        if not _has_id(listing, record, "id", place) or not _has_name(listing, record, "file_name", place):
            continue
        number, name = record["id"], record["file_name"]
        width, height = record.get("width"), record.get("height")
        size = (width, height) if _is_side(width) and _is_side(height) else None
        if detection and size is None:
            text = f"`width` and `height` are {width!r} and {height!r}, not whole numbers of at least 1"
            listing.report("malformed-entry", "error", name, text, image=position)
        elif detection and size is not None and size[0] * size[1] > limit("pixels"):
            text = excess("pixels", f"{size[0]} x {size[1]} are too many pixels")
            listing.report("malformed-entry", "error", name, text, image=position)
        image = ListedImage(position, name, name, size)
        if number in images:
            listing.report("repeated-id", "error", name, f"the image id {number} is used twice", image=position)
        else:
            images[number] = image
        spelling = same_file_name(name)
        if spelling in names:
            as_other = "" if names[spelling] == name else f", also as {names[spelling]!r}"
            listing.report("repeated-name", "error", name, f"{name!r} is listed twice{as_other}", image=position)
        names.setdefault(spelling, name)
        listing.images.append(image)
    return images


def _annotations(
    listing: Listing,
    records: Sequence[CocoAnnotation],
    images: dict[int, ListedImage],
    categories: dict[int, str],
) -> list[tuple[int, ListedImage]]:
    """Adds labels to the images; returns the positions of the annotations whose image and category exist."""
    known: list[tuple[int, ListedImage]] = []
    numbers: set[int] = set()
    detection = listing.source.task == "detection"
    for position, record in enumerate(records):
        place = annotation_place(record, position)
        if not _has_id(listing, record, "image_id", place) or not _has_id(listing, record, "category_id", place):
            continue
        if detection and _has_id(listing, record, "id", place):
            if record["id"] in numbers:
                listing.report("repeated-id", "error", place, f"the annotation id {record['id']} is used twice")
            numbers.add(record["id"])
        image, name = images.get(record["image_id"]), categories.get(record["category_id"])
        if image is None or name is None:
            lacking = f"image {record['image_id']}" if image is None else f"category {record['category_id']}"
            listing.report("unknown-id", "error", place, f"there is no {lacking}", annotation=position)
            continue
        known.append((position, image))
        if not detection:
            image.shown.add(name)
            image.labels.add(name)
    return known


def _is_side(value: object) -> TypeGuard[int]:
    return is_id(value) and value >= 1


def _has_id(listing: Listing, record: object, key: str, place: str) -> bool:
    if not isinstance(record, dict) or key not in record:
        listing.report("malformed-entry", "error", place, f"has no `{key}`")
    elif not is_id(record[key]):
        listing.report("malformed-entry", "error", place, f"`{key}` is {_short(record[key])}, not a whole number")
    else:
        return True
    return False


def _has_name(listing: Listing, record: Mapping[str, object], key: str, place: str) -> bool:
    if isinstance(record.get(key), str) and record[key]:
        return True
    text = f"`{key}` is {_short(record[key])}, not a name" if key in record else f"has no `{key}`"
    listing.report("malformed-entry", "error", place, text)
    return False


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "a number of more than 64 bits"
    return text if len(text) <= 60 else f"{text[:57]}..."
