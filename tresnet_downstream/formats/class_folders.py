"""Reads images from a folder for each class, the layout of ImageNet and torchvision's ``ImageFolder``."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.labelled_images import LabelledImages
from tresnet_downstream.images import SUFFIXES
from tresnet_downstream.text_files import refuse_duplicates


def read_class_folders(folder: str | os.PathLike[str], classes: Sequence[str] | None = None) -> LabelledImages:
    """Lists the images of each class, sorted by name.

    The names of images are relative to ``folder``. Images in subfolders of a class folder belong to the class. Files
    and folders whose names begin with a dot are ignored.

    Args:
        folder: the folder with a subfolder for each class.
        classes: class names, in order; None for the sorted names of the subfolders.

    Raises:
        UserError: if the folder does not exist, has no subfolders, or has no images for a class, or if the subfolders
            are not ``classes``.

    Examples:
        >>> for name in ("cat", "dog"):
        ...     os.makedirs(f"images/{name}")
        ...     _ = Path(f"images/{name}/1.jpg").write_bytes(b"")
        >>> images = read_class_folders("images")
        >>> images.names, images.class_of.tolist()
        (['cat/1.jpg', 'dog/1.jpg'], [0, 1])
    """
    root, folder_names = Path(folder), class_names_of(folder)
    names = tuple(folder_names) if classes is None else tuple(classes)
    refuse_duplicates(folder, "name in `classes`", names)
    known = set(names)
    if foreign := [name for name in folder_names if name not in known]:
        raise UserError(
            f"{folder}: has {len(foreign)} folders that are not among the {len(names)} classes, such as {foreign[0]!r}"
        )
    existing = set(folder_names)
    paths: list[str] = []
    numbers: list[int] = []
    for number, name in enumerate(names):
        # In scoring, the folder of a class may be empty. If it is missing, its name may be misspelt.
        if name not in existing:
            raise UserError(f"{folder}: has no folder of the class {name!r}")
        paths_of_class = images_of_class(root, name)
        if not paths_of_class and classes is None:
            raise UserError(f"{folder}: has no image of the class {name!r}")
        paths += paths_of_class
        numbers += [number] * len(paths_of_class)
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
    """The sorted names of the subfolders of a folder, without those that begin with a dot.

    Raises:
        UserError: if there is no such folder, or no folder in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder; name a folder with a folder of images for each class")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: has no folders; it must have a folder of images for each class")
    return tuple(names)


def images_of_class(root: str | os.PathLike[str], name: str) -> list[str]:
    """The paths of the images in the folder of a class and its subfolders, relative to ``root``, sorted by name."""
    paths = []
    for parent, folders, files in os.walk(Path(root) / name):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        relative = os.path.relpath(parent, root)
        paths += [
            f"{relative}/{file}".replace(os.sep, "/")
            for file in sorted(files)
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES
        ]
    return paths
