"""Multi-label annotations: which image shows which classes.

They are held in a handful of numpy arrays, since a forked worker copies every page on which it touches the
reference count of a Python object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import LabelledImages, read_class_folders, read_file
from tresnet_downstream.text_files import File

DIFFICULT = ("unknown", "positive")


@dataclass(frozen=True, eq=False)
class MultilabelAnnotations:
    """The labels of N images in C classes, as compact arrays that forked workers share.

    A target is 1 where the image shows the class, -1 where nobody has verified it, and 0 elsewhere. Row ``i``
    of the sparse targets is ``indices[indptr[i]:indptr[i + 1]]`` with the values beside it.

    Attributes:
        classes: the C class names, in the order of the targets' columns.
        name_bytes: the image names in UTF-8, one after the other, uint8.
        name_offsets: where each name begins and, last, where all end, int64 of shape (N + 1,).
        indptr: where each image's labels begin and, last, where all end, int64 of shape (N + 1,).
        indices: the class of each label, int32, ascending within an image.
        values: 1 or -1 for each label, int8.
        unlabelled_bytes: the names of the images without annotation, which the file lists and this leaves out, as
            ``name_bytes``.
        unlabelled_offsets: where each of them begins and, last, where all end, as ``name_offsets``.
    """

    classes: tuple[str, ...]
    name_bytes: np.ndarray
    name_offsets: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    unlabelled_bytes: np.ndarray
    unlabelled_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def path(self, index: int) -> str:
        """Give the name of image ``index`` as the file has it, relative to the folder of images."""
        return self.name_bytes[self.name_offsets[index] : self.name_offsets[index + 1]].tobytes().decode()

    def paths(self) -> list[str]:
        """Give the names of all images; quicker than one by one."""
        return _decoded(self.name_bytes, self.name_offsets)

    @property
    def num_unlabelled(self) -> int:
        """How many images without annotation are left out."""
        return len(self.unlabelled_offsets) - 1

    def unlabelled(self) -> list[str]:
        """Give the names of the images without annotation that are left out."""
        return _decoded(self.unlabelled_bytes, self.unlabelled_offsets)

    def target(self, index: int) -> np.ndarray:
        """Give the target of image ``index``: int8 of shape (C,) with values -1, 0 and 1."""
        row = slice(self.indptr[index], self.indptr[index + 1])
        target = np.zeros(len(self.classes), np.int8)
        target[self.indices[row]] = self.values[row]
        return target

    def targets(self) -> np.ndarray:
        """Give all targets: int8 of shape (N, C) with values -1, 0 and 1."""
        targets = np.zeros((len(self), len(self.classes)), np.int8)
        targets[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return targets

    def positives_per_class(self) -> np.ndarray:
        """Count the images that show each class: int64 of shape (C,)."""
        return np.bincount(self.indices[self.values == 1], minlength=len(self.classes))

    def unknown_per_class(self) -> np.ndarray:
        """Count the images of which nobody knows whether they show each class: int64 of shape (C,)."""
        return np.bincount(self.indices[self.values == -1], minlength=len(self.classes))


def joined(several: Sequence[MultilabelAnnotations]) -> MultilabelAnnotations:
    """One after the other; all have the classes of the first."""

    def ends(each: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(offsets) for offsets in each]))]).astype(np.int64)

    return MultilabelAnnotations(
        classes=several[0].classes,
        name_bytes=np.concatenate([each.name_bytes for each in several]),
        name_offsets=ends([each.name_offsets for each in several]),
        indptr=ends([each.indptr for each in several]),
        indices=np.concatenate([each.indices for each in several]),
        values=np.concatenate([each.values for each in several]),
        unlabelled_bytes=np.concatenate([each.unlabelled_bytes for each in several]),
        unlabelled_offsets=ends([each.unlabelled_offsets for each in several]),
    )


def read_annotations(
    file: File, classes: Sequence[str] | None = None, keep_empty: bool = False, difficult: str = "unknown"
) -> MultilabelAnnotations:
    """Read an annotation file of any of `tresnet_downstream.formats`.

    An image shows a class when any annotation says so, COCO's crowds included.

    Args:
        file: a COCO file (``.json``), a table (``.csv``) or a list of PASCAL VOC (``.txt``).
        classes: the class names that the targets' columns must have, in this order.
        keep_empty: whether images without annotation stay; the published recipes leave them out.
        difficult: what objects that VOC marks as difficult say of their image: with ``unknown`` the target of a class
            with no other object is -1, as VOC leaves it out of its scores, with ``positive`` it is 1.

    Raises:
        UserError: the file is missing, malformed or empty, its classes are not ``classes``, or ``difficult`` has
            another value.
    """
    if difficult not in DIFFICULT:
        raise UserError(f"`difficult`={difficult!r}: choose {' or '.join(DIFFICULT)}")
    return of_labelled_images(file, read_file(file, classes), keep_empty, difficult)


def of_class_folders(folder: File, classes: Sequence[str] | None = None) -> MultilabelAnnotations:
    """List the images of a folder that holds a folder for each class; see `read_class_folders`.

    Args:
        folder: the folder.
        classes: the class names in the order wanted; without them the sorted names of the folders.

    Raises:
        UserError: as `read_class_folders`.
    """
    return of_labelled_images(folder, read_class_folders(folder, classes))


def of_labelled_images(
    file: File, images: LabelledImages, keep_empty: bool = False, difficult: str = "unknown"
) -> MultilabelAnnotations:
    """Sort the labels, count repeated ones once, and leave out images without any, unless they are to stay.

    Raises:
        UserError: there is no image, no class, or no image with an annotation.
    """
    names, classes = images.names, images.classes
    if not names or not classes:
        raise UserError(f"{file}: lists no {'image' if not names else 'class'}")
    unknown = images.unknown | (images.difficult & (difficult == "unknown"))
    values = np.where(unknown, -1, 1)
    # Of several annotations of a class in an image, one that is sure counts.
    order = np.argsort(-values, kind="stable")
    labels = np.stack([images.image_of, images.class_of])[:, order]
    codes, first = np.unique(np.ravel_multi_index(labels, (len(names), len(classes))), return_index=True)
    counts = np.bincount(codes // len(classes), minlength=len(names))
    used = np.flatnonzero(counts > 0) if not keep_empty else np.arange(len(names))
    if not len(used):
        raise UserError(f"{file}: no image has an annotation; keep_empty=True keeps images without")
    name_bytes, name_offsets = _encoded([names[place] for place in used])
    left_out = np.setdiff1d(np.arange(len(names)), used, assume_unique=True)
    unlabelled_bytes, unlabelled_offsets = _encoded([names[place] for place in left_out])
    return MultilabelAnnotations(
        classes=classes,
        name_bytes=name_bytes,
        name_offsets=name_offsets,
        indptr=np.concatenate([[0], np.cumsum(counts[used])]).astype(np.int64),
        indices=(codes % len(classes)).astype(np.int32),
        values=values[order][first].astype(np.int8),
        unlabelled_bytes=unlabelled_bytes,
        unlabelled_offsets=unlabelled_offsets,
    )


def _encoded(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Put names one after the other as bytes, and say where each begins."""
    encoded = [name.encode() for name in names]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _decoded(content: np.ndarray, offsets: np.ndarray) -> list[str]:
    text = content.tobytes()
    return [text[start:end].decode() for start, end in pairwise(offsets.tolist())]
