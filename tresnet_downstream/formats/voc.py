"""Reads PASCAL VOC's layout: a list of image names, and an XML file of objects for each image.

``ROOT/ImageSets/Main/train.txt`` has the name of an image in each line. ``ROOT/Annotations/NAME.xml`` has the objects
of an image with their boxes; annotation tools write such files too. Pixels are counted from 1, and a box includes its
last pixels, so that a box from 1 to 10 has a width of 10 pixels.
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from tresnet_downstream.coco_records import CocoAnnotation, CocoImage
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.labelled_images import LabelledImages
from tresnet_downstream.limits import excess, limit
from tresnet_downstream.text_files import File, read_text, refuse_duplicates, refuse_repeated_images

LAYOUT = "VOC has ImageSets/Main/train.txt and Annotations/NAME.xml below one folder"
_ANNOTATIONS = "Annotations"


class VocImage(TypedDict):
    """The image of an XML file.

    Attributes:
        file_name: name of the image file.
        width: width in pixels.
        height: height in pixels.
    """

    file_name: str
    width: int
    height: int


class VocObject(TypedDict):
    """An object of an XML file.

    Attributes:
        bbox: left, top, width and height in pixels from 0.
        area: area of the box in pixels.
        difficult: 1 for an object that is marked as difficult, otherwise 0.
    """

    bbox: list[float]
    area: float
    difficult: int


def read_voc_file(file: File, classes: Sequence[str] | None = None, others: bool = False) -> LabelledImages:
    """Reads the XML files of the images in a list.

    ``content`` has the form of COCO, with boxes as ``[left, top, width, height]`` in pixels from 0. Each annotation
    also has ``difficult``, 0 or 1.

    Args:
        file: a list of names such as ``ImageSets/Main/train.txt``.
        classes: class names, in order; None for the sorted names of the objects.
        others: whether objects of further classes are allowed. These follow ``classes`` in alphabetical order.

    Raises:
        UserError: if a file is missing or malformed, if the list is that of a single class, or if the class of an
            object is not in ``classes`` and ``others`` is False.
    """
    names = listed_names(file)
    folder = annotation_folder(file)
    refuse_duplicates(file, "name in `classes`", classes or ())
    images: list[CocoImage] = []
    all_objects: list[tuple[int, str, VocObject]] = []
    for number, name in enumerate(names):
        path = folder / f"{name}.xml"
        image, objects = read_voc_image(path, name)
        images.append({"id": number, **image})
        for label, item in objects:
            all_objects.append((number, label, item))
            if classes is not None and not others and label not in classes:
                known = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
                raise UserError(f"{path}: has the class {label!r}, which is not among the {len(classes)}: {known}")
    names = [image["file_name"] for image in images]
    refuse_repeated_images(file, names)
    columns = [*(classes or ()), *sorted({name for _, name, _ in all_objects} - set(classes or ()))]
    place = {name: column for column, name in enumerate(columns)}
    annotations: list[CocoAnnotation] = [
        {
            "id": number,
            "image_id": image,
            "category_id": place[name],
            "iscrowd": 0,
            "bbox": item["bbox"],
            "area": item["area"],
            "difficult": item["difficult"],
        }
        for number, (image, name, item) in enumerate(all_objects)
    ]
    return LabelledImages(
        content={
            "images": images,
            "annotations": annotations,
            "categories": [{"id": column, "name": name} for name, column in place.items()],
        },
        names=names,
        classes=tuple(columns),
        image_of=np.array([image for image, _, _ in all_objects], np.int64),
        class_of=np.array([place[name] for _, name, _ in all_objects], np.int64),
        unknown=np.zeros(len(all_objects), bool),
        difficult=np.array([item["difficult"] for _, _, item in all_objects], bool),
    )


def read_voc_image(path: Path, name: str) -> tuple[VocImage, list[tuple[str, VocObject]]]:
    """Reads the XML file of one image.

    Args:
        path: the file.
        name: name of the image in the list.

    Returns:
        ``file_name``, ``width`` and ``height`` of the image; and for each object, its class and a dict of ``bbox``,
        ``area`` and ``difficult``.

    Raises:
        UserError: if the file is missing or malformed.
    """
    root = _parsed(path)
    width, height = _size(path, root)
    image: VocImage = {"file_name": _file_name(root, name), "width": width, "height": height}
    return image, [(_text(path, item, "name"), _object(path, item)) for item in root.findall("object")]


def listed_names(file: File) -> list[str]:
    """Reads the names in a list of images.

    Raises:
        UserError: if the file cannot be read, is the list of a single class, is empty, or has a name twice.
    """
    names = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        cells = line.split()
        if len(cells) == 2 and re.fullmatch(r"-?[01]", cells[1]):
            raise UserError(
                f"{file}: is the list of one class; give the list of all images, such as train.txt beside it"
            )
        if len(cells) > 1:
            raise UserError(f"{file}: line {number} is {line[:60]!r}, not the name of an image; {LAYOUT}")
        names += cells
    if not names:
        raise UserError(f"{file}: lists no image")
    refuse_duplicates(file, "name", names)
    return names


def annotation_folder(file: File) -> Path:
    """The folder of the XML files for a list of images.

    Raises:
        UserError: if it is not in the folder of the list or in one of the two folders above.
    """
    for parent in Path(os.path.abspath(file)).parents[:3]:
        if (parent / _ANNOTATIONS).is_dir():
            return parent / _ANNOTATIONS
    raise UserError(f"{file}: there is no folder {_ANNOTATIONS} beside it or up to two folders above; {LAYOUT}")


def _parsed(path: Path) -> ElementTree.Element:
    text = read_text(path)
    if len(text) > limit("xml_bytes"):
        raise UserError(f"{path}: {excess('xml_bytes', f'has {len(text):,} characters')}")
    # Entities may expand without limit and include other files. Files of PASCAL VOC have none.
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise UserError(f"{path}: declares a document type or entities, which VOC's files do not")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: is not well-formed XML ({error})") from error
    if root.tag != "annotation":
        raise UserError(f"{path}: its outermost element is <{root.tag[:40]}>, not <annotation>")
    return root


def _file_name(root: ElementTree.Element, name: str) -> str:
    """The file name of the image. Its suffix is that in the XML file if the name there is the listed one, else .jpg.

    Tools that rename images may leave an old name in the XML file.
    """
    stated, suffix = os.path.splitext((root.findtext("filename") or "").strip())
    return name + suffix if stated == os.path.basename(name) and len(suffix) > 1 else f"{name}.jpg"


def _size(path: Path, root: ElementTree.Element) -> tuple[int, int]:
    size = root.find("size")
    if size is None:
        raise UserError(f"{path}: has no <size>, which boxes are compared with")
    sides = {key: _number(path, size, key) for key in ("width", "height")}
    if min(sides.values()) < 1 or any(side != int(side) for side in sides.values()):
        raise UserError(f"{path}: its <size> is {sides['width']:g} x {sides['height']:g}, not whole numbers above 0")
    return int(sides["width"]), int(sides["height"])


def _object(path: Path, item: ElementTree.Element) -> VocObject:
    box = item.find("bndbox")
    if box is None:
        raise UserError(f"{path}: an object <{_text(path, item, 'name')}> has no <bndbox>")
    left, top, right, bottom = (_number(path, box, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (item.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise UserError(f"{path}: <difficult> is {difficult[:40]!r}, not 0 or 1")
    width, height = right - left + 1, bottom - top + 1
    return {
        "bbox": [left - 1, top - 1, width, height],
        "area": max(width, 0.0) * max(height, 0.0),
        "difficult": int(difficult),
    }


def _text(path: Path, item: ElementTree.Element, key: str) -> str:
    text = (item.findtext(key) or "").strip()
    if not text:
        raise UserError(f"{path}: an <{item.tag}> has no <{key}>")
    return text


def _number(path: Path, item: ElementTree.Element, key: str) -> float:
    text = _text(path, item, key)
    # `float` would also accept "nan", "1_0" and digits of other alphabets.
    if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]*)?", text):
        raise UserError(f"{path}: <{key}> is {text[:40]!r}, not a number of pixels")
    return float(text)
