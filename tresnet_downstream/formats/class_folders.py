"""A folder for each class, with its images inside, as ImageNet and torchvision's ``ImageFolder`` have them."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.labelled_images import LabelledImages
from tresnet_downstream.pictures import SUFFIXES
from tresnet_downstream.text_files import refuse_duplicates


def read_class_folders(folder: str | os.PathLike[str], classes: Sequence[str] | None = None) -> LabelledImages:
    """Lists the images of each class; folders and files in the order of their names.

    Names are relative to ``folder``. Folders below a class's folder belong to it too. Names that begin
    with a dot are passed over.

    Args:
        folder: it holds a folder for each class.
        classes: the names in the order wanted, and no other may be there; without them those of the folders, sorted.

    Raises:
        UserError: if there is no such folder, no class in it or no image in a class, or the classes are not
            ``classes``.
    """
    root, found = Path(folder), class_names_of(folder)
    names = tuple(found) if classes is None else tuple(classes)
    refuse_duplicates(folder, "name in `classes`", names)
    known = set(names)
    if foreign := [name for name in found if name not in known]:
        raise UserError(
            f"{folder}: has {len(foreign)} folders that are none of the {len(names)} classes, such as {foreign[0]!r}"
        )
    there = set(found)
    paths: list[str] = []
    numbers: list[int] = []
    for number, name in enumerate(names):
        # A class may lack images to score, but not a place for them: else a folder's name is misspelt.
        if name not in there:
            raise UserError(f"{folder}: has no folder of the class {name!r}")
        inside = images_of_class(root, name)
        if not inside and classes is None:
            raise UserError(f"{folder}: has no image of the class {name!r}")
        paths += inside
        numbers += [number] * len(inside)
    if not paths:
        raise UserError(f"{folder}: has no image in its folders")
    return LabelledImages(
        names=paths,
        classes=names,
        image_of=np.arange(len(paths)),
        class_of=np.array(numbers, np.int64),
        unknown=np.zeros(len(paths), bool),
        difficult=np.zeros(len(paths), bool),
    )


def class_names_of(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted; those that begin with a dot are none.

    Raises:
        UserError: if there is no such folder, or no folder in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder; name one that holds a folder of images for each class")
    found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: has no folders; it must hold a folder of images for each class")
    return tuple(found)


def images_of_class(root: str | os.PathLike[str], name: str) -> list[str]:
    """The images in the folder of a class and below it, relative to ``root``, in the order of their names."""
    found = []
    for place, folders, files in os.walk(Path(root) / name):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        below = os.path.relpath(place, root)
        found += [
            f"{below}/{file}".replace(os.sep, "/")
            for file in sorted(files)
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES
        ]
    return found
