"""Findings of a check of data: their kinds and severities."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """A kind of findings.

    Attributes:
        meaning: a short description for the table.
        removable: the severities for which :func:`tresnet_downstream.data_check.fixing.write_cleaned` removes findings.
    """

    meaning: str
    removable: tuple[Severity, ...] = ()


# In the order of the table, within a severity.
KINDS = {
    "unreadable-file": Kind("the annotation file cannot be read, or is not in a supported format"),
    "missing-folder": Kind("the folder of images does not exist"),
    "same-file": Kind("two splits read the same annotation file"),
    "no-images": Kind("the annotation file lists no image"),
    "no-classes": Kind("the annotation file lists no class"),
    "no-labels": Kind("no image with a label is left to train on"),
    "malformed-entry": Kind("an entry or line lacks a value, or has one of another type"),
    "repeated-id": Kind("an id or category name is used twice"),
    "repeated-name": Kind("a file name is listed twice, perhaps in two spellings"),
    "unknown-id": Kind("an annotation refers to an image or category that is not listed", removable=SEVERITIES),
    "other-classes": Kind("the classes are not those of the training data or of the config"),
    "several-labels": Kind("an image must have exactly one label, and has several or an unknown one"),
    "malformed-box": Kind("a box is not four numbers, or one is too large"),
    "malformed-mask": Kind("the model needs masks, and an annotation has none that can be used"),
    "box-convention": Kind("the boxes of the file are not left, top, width, height in pixels"),
    "box-without-area": Kind("the width or height of a box is not above 0", removable=SEVERITIES),
    "box-outside": Kind("a box lies outside of its image", removable=SEVERITIES),
    "box-beyond-edge": Kind("a box reaches beyond the edge of its image", removable=SEVERITIES),
    "narrow-box": Kind("a box is narrower than a pixel; training leaves it out"),
    "impossible-name": Kind("a name that no file can have", removable=SEVERITIES),
    # A warning if outside paths are allowed, or the name leads back in, because training then uses the image.
    "name-leaves-folder": Kind("a name or symbolic link leads out of the folder of images", removable=("error",)),
    "missing-image": Kind("an image file does not exist", removable=SEVERITIES),
    "broken-image": Kind("an image cannot be decoded to the last pixel", removable=SEVERITIES),
    "killed-worker": Kind("the process that read the image was killed, usually for lack of memory"),
    "other-size": Kind("the annotation file gives another size than the image has"),
    "leaked-image": Kind("a training image is also a validation or test image", removable=SEVERITIES),
    "shared-image": Kind("a validation image is also a test image"),
    "contradictory-labels": Kind("identical images have different labels"),
    "duplicate-image": Kind("identical images within a split have the same labels", removable=SEVERITIES),
    "near-leak": Kind("a training image looks like a validation or test image"),
    "near-duplicate": Kind("two images of a split look alike"),
    "class-without-positives": Kind("no image shows the class"),
    "class-without-negatives": Kind("every image shows the class"),
    "unlabelled-images": Kind("images without a label are left out"),
}


@dataclass(frozen=True)
class Finding:
    """One fault of the data.

    Attributes:
        kind: a key of ``KINDS``.
        severity: ``error`` if training or scoring would stop or be wrong, ``warning`` if it would do without
            something or be worse, ``note`` for what may be intended.
        split: ``train``, ``val``, ``test``, or ``data`` for a file without a config.
        file: the annotation file.
        place: place in the file: an image name, ``annotation 17``, ``line 4``, a class; empty for the whole file.
        text: description of the fault.
        image: position of the image among those that the file lists, if the finding is about one.
        annotation: position of the annotation in a COCO file, if the finding is about one.
    """

    kind: str
    severity: Severity
    split: str
    file: str
    place: str
    text: str
    image: int | None = None
    annotation: int | None = None

    @property
    def is_removable(self) -> bool:
        """Whether cleaning the file removes the finding."""
        return self.severity in KINDS[self.kind].removable
