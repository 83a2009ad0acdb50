"""The content of a split's annotation file, as far as the checks need it."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from tresnet_downstream.coco_records import CocoInstances
from tresnet_downstream.coco_shapes import is_id
from tresnet_downstream.data_check.findings import Finding, Severity
from tresnet_downstream.errors import UserError


@dataclass(frozen=True)
class Source:
    """The files of a split, and how training uses them.

    Attributes:
        split: ``train``, ``val``, ``test``, or ``data`` for a file without a config.
        annotation_file: a COCO ``.json`` or a ``.csv`` file, VOC's ``.txt`` list, or a folder of class folders.
        image_folder: folder to which the names in it are relative.
        task: ``classification`` or ``detection``; boxes are checked only for detection.
        classes: classes in the config; None for the classes of the training data.
        keep_empty: whether images without a label are used.
        tolerates_bad_images: whether training leaves out missing and broken images.
        needs_labels: whether the file must list annotations.
        needs_masks: whether every annotation must have a mask.
        outside_paths: whether images may be outside of the folder.
        trusts_boxes: whether training takes boxes as they are where they look like another convention, and images of
            other sizes than the file says.
        one_label: whether each image must have exactly one label.
        min_size: images with a smaller side, in pixels by the annotation file, are left out of training.
    """

    split: str
    annotation_file: str
    image_folder: str
    task: Literal["classification", "detection"]
    classes: tuple[str, ...] | None = None
    keep_empty: bool = False
    tolerates_bad_images: bool = False
    needs_labels: bool = True
    needs_masks: bool = False
    outside_paths: bool = False
    trusts_boxes: bool = False
    one_label: bool = False
    min_size: int = 0

    @property
    def is_training(self) -> bool:
        """Whether the split is training data; a file without a config is checked like training data."""
        return self.split in ("train", "data")

    @property
    def can_be_cleaned(self) -> bool:
        """Whether a cleaned file can be written, which is possible for COCO files and tables."""
        return self.annotation_file.lower().endswith((".json", ".csv"))


@dataclass
class ListedImage:
    """An image in an annotation file.

    Attributes:
        position: index among ``images`` of a COCO file, or among the rows of a table.
        name: file name, relative to the image folder.
        place: name of the image in findings.
        size: width and height in the file, in pixels; None if the file has none.
        shown: the classes in the image.
        unverified: the classes whose label is unknown.
        labels: all annotations, including boxes; they should be equal for identical images.
    """

    position: int
    name: str
    place: str
    size: tuple[int, int] | None = None
    shown: set[str] = field(default_factory=set)
    unverified: set[str] = field(default_factory=set)
    labels: set[Hashable] = field(default_factory=set)


@dataclass
class Listing:
    """The content of an annotation file, and its faults.

    Attributes:
        source: the source of the split.
        images: the images whose entries have a name and, in a COCO file, an id.
        classes: the class names, in the order of the targets' columns.
        content: the parsed JSON, or the rows of a table as lists of cells; None if the file is unreadable. VOC's
            objects have COCO's form.
        findings: the faults of the file.
    """

    source: Source
    images: list[ListedImage] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    content: CocoInstances | list[list[str]] | None = None
    findings: list[Finding] = field(default_factory=list)

    def report(
        self,
        kind: str,
        severity: Severity,
        place: str,
        text: str,
        image: int | None = None,
        annotation: int | None = None,
    ) -> None:
        """Adds a finding about this file."""
        source = self.source
        finding = Finding(kind, severity, source.split, source.annotation_file, place, text, image, annotation)
        self.findings.append(finding)

    def report_unreadable(self, error: UserError) -> None:
        """Adds a finding with the message of a reader that refused the file."""
        text = str(error).removeprefix(f"{self.source.annotation_file}: ")
        self.report("unreadable-file", "error", "", text)

    def uses(self, image: ListedImage) -> bool:
        """Whether training or scoring reads an image: without `keep_empty`, only if it has a label."""
        return self.source.keep_empty or bool(image.shown or image.unverified)

    @property
    def used_images(self) -> list[ListedImage]:
        """The images that training or scoring reads."""
        return [image for image in self.images if self.uses(image)]


def annotation_place(record: object, position: int) -> str:
    """The name of an annotation in findings: its id, or its position if it has no id."""
    number = record.get("id") if isinstance(record, dict) else None
    return f"annotation {number}" if is_id(number) else f"annotations[{position}]"
