"""Multi-label annotations: the classes that each image shows.

They are stored in a few numpy arrays rather than in Python objects. A forked worker copies every memory page on which
it changes the reference count of an object.
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

    A target is 1 if the image shows the class, -1 if this has not been verified, and 0 otherwise. The targets are a
    sparse matrix in CSR format: row ``i`` has the columns ``indices[indptr[i]:indptr[i + 1]]``, and ``values`` has the
    values at the same positions.

    Attributes:
        classes: the C class names, in the order of the columns of the targets.
        name_bytes: the concatenated image names in UTF-8, uint8.
        name_offsets: the beginning of each name, and the end of the last one, int64 of shape (N + 1,).
        indptr: the beginning of each image's labels, and the end of the last ones, int64 of shape (N + 1,).
        indices: the class of each label, int32, ascending for each image.
        values: 1 or -1 for each label, int8.
        unlabelled_bytes: the concatenated names of images without annotation, which the file lists and which are not
            among the N images, uint8.
        unlabelled_offsets: the beginning of each of these names, and the end of the last one, int64.

    Examples:
        >>> image_of, class_of, none = np.array([0, 1]), np.array([1, 0]), np.zeros(2, bool)
        >>> images = LabelledImages(["a.jpg", "b.jpg"], ("cat", "dog"), image_of, class_of, none, none)
        >>> of_labelled_images("labels.csv", images).targets()
        array([[0, 1],
               [1, 0]], dtype=int8)
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
        """The name of image ``index`` in the annotation file, relative to the folder of images."""
        return self.name_bytes[self.name_offsets[index] : self.name_offsets[index + 1]].tobytes().decode()

    def paths(self) -> list[str]:
        """The names of all images. Faster than :meth:`path` for each."""
        return _decoded(self.name_bytes, self.name_offsets)

    @property
    def num_unlabelled(self) -> int:
        """The number of images without annotation, which are left out."""
        return len(self.unlabelled_offsets) - 1

    def unlabelled(self) -> list[str]:
        """The names of the images without annotation, which are left out."""
        return _decoded(self.unlabelled_bytes, self.unlabelled_offsets)

    def target(self, index: int) -> np.ndarray:
        """The target of image ``index``: int8 of shape (C,) with values -1, 0 and 1."""
        row = slice(self.indptr[index], self.indptr[index + 1])
        target = np.zeros(len(self.classes), np.int8)
        target[self.indices[row]] = self.values[row]
        return target

    def targets(self) -> np.ndarray:
        """The targets of all images: int8 of shape (N, C) with values -1, 0 and 1."""
        targets = np.zeros((len(self), len(self.classes)), np.int8)
        targets[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return targets

    def positives_per_class(self) -> np.ndarray:
        """The number of images that show each class: int64 of shape (C,)."""
        return np.bincount(self.indices[self.values == 1], minlength=len(self.classes))

    def unknown_per_class(self) -> np.ndarray:
        """The number of images for which each class is unverified: int64 of shape (C,)."""
        return np.bincount(self.indices[self.values == -1], minlength=len(self.classes))


def joined(parts: Sequence[MultilabelAnnotations]) -> MultilabelAnnotations:
    """Concatenates annotations. All parts must have the classes of the first."""

    def concatenated(offsets: list[np.ndarray]) -> np.ndarray:
        lengths = np.concatenate([np.diff(of_part) for of_part in offsets])
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    return MultilabelAnnotations(
        classes=parts[0].classes,
        name_bytes=np.concatenate([part.name_bytes for part in parts]),
        name_offsets=concatenated([part.name_offsets for part in parts]),
        indptr=concatenated([part.indptr for part in parts]),
        indices=np.concatenate([part.indices for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        unlabelled_bytes=np.concatenate([part.unlabelled_bytes for part in parts]),
        unlabelled_offsets=concatenated([part.unlabelled_offsets for part in parts]),
    )


def read_annotations(
    file: File, classes: Sequence[str] | None = None, keep_empty: bool = False, difficult: str = "unknown"
) -> MultilabelAnnotations:
    """Reads an annotation file in any format of `tresnet_downstream.formats`.

    An image shows a class if it has an annotation of that class. COCO's crowds count.

    Args:
        file: a COCO file (``.json``), a table (``.csv``) or a list of PASCAL VOC (``.txt``).
        classes: class names of the columns of the targets, in this order; None for those of the file.
        keep_empty: whether images without annotation are kept. The published recipes leave them out.
        difficult: the target of a class of which an image shows only objects that PASCAL VOC marks as difficult:
            ``unknown`` for -1, since VOC leaves such images out of its scores, or ``positive`` for 1.

    Raises:
        UserError: if the file is missing, malformed or empty, if its classes are not ``classes``, or if ``difficult``
            has another value.
    """
    if difficult not in DIFFICULT:
        raise UserError(f"`difficult`={difficult!r}: choose {' or '.join(DIFFICULT)}")
    return of_labelled_images(file, read_file(file, classes), keep_empty, difficult)


def of_class_folders(folder: File, classes: Sequence[str] | None = None) -> MultilabelAnnotations:
    """The annotations of a folder with a subfolder of images for each class; see `read_class_folders`.

    Args:
        folder: the folder.
        classes: class names, in this order; None for the sorted names of the subfolders.

    Raises:
        UserError: as `read_class_folders`.
    """
    return of_labelled_images(folder, read_class_folders(folder, classes))


def of_labelled_images(
    file: File, images: LabelledImages, keep_empty: bool = False, difficult: str = "unknown"
) -> MultilabelAnnotations:
    """Converts labelled images to annotations. Repeated labels count once.

    Args:
        file: the annotation file, for messages.
        images: the images and their labels.
        keep_empty: see :func:`read_annotations`.
        difficult: see :func:`read_annotations`.

    Raises:
        UserError: if there is no image, no class, or no image with an annotation.
    """
    names, classes = images.names, images.classes
    if not names or not classes:
        raise UserError(f"{file}: lists no {'image' if not names else 'class'}")
    unknown = images.unknown | (images.difficult & (difficult == "unknown"))
    values = np.where(unknown, -1, 1)
    # If an image has several annotations of a class, 1 takes precedence over -1.
    order = np.argsort(-values, kind="stable")
    labels = np.stack([images.image_of, images.class_of])[:, order]
    codes, first = np.unique(np.ravel_multi_index(labels, (len(names), len(classes))), return_index=True)
    counts = np.bincount(codes // len(classes), minlength=len(names))
    used = np.flatnonzero(counts > 0) if not keep_empty else np.arange(len(names))
    if not len(used):
        raise UserError(f"{file}: no image has an annotation; keep_empty=True keeps images without any")
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
    """The concatenated names in UTF-8, and their offsets."""
    encoded = [name.encode() for name in names]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _decoded(content: np.ndarray, offsets: np.ndarray) -> list[str]:
    text = content.tobytes()
    return [text[start:end].decode() for start, end in pairwise(offsets.tolist())]
