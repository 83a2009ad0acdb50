"""What a split is read from, and what its annotation file lists as far as it can be understood."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from tresnet_downstream.coco_shapes import is_id
from tresnet_downstream.data_check.findings import Finding, Severity
from tresnet_downstream.errors import UserError


@dataclass(frozen=True)
class Source:
    """The files of a split, with what training does with them.

    Attributes:
        split: ``train``, ``val``, ``test``, or ``data`` for a file without a config.
        annotation_file: a COCO ``.json`` or a ``.csv`` file, VOC's ``.txt`` list, or a folder of class folders.
        image_folder: what the names in it are relative to.
        task: what the file is read for; only detection looks at boxes.
        classes: the classes that the config names; None for those of the training data.
        keep_empty: whether images without a label are used.
        tolerates_bad_images: whether training does without images that are missing or broken.
        needs_labels: whether the file must list annotations.
        needs_masks: whether every annotation must have a mask.
        outside_paths: whether the names of images may lead out of the folder.
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
        """Whether a model trains on it; a file without a config is checked as if one would."""
        return self.split in ("train", "data")

    @property
    def can_be_cleaned(self) -> bool:
        """Whether a cleaned file can be written: of COCO files and tables."""
        return self.annotation_file.lower().endswith((".json", ".csv"))


@dataclass
class ListedImage:
    """An image as the annotation file lists it.

    Attributes:
        position: its place in the file: among ``images`` of a COCO file, among the rows of a table.
        name: its file name, relative to the folder of images.
        place: how a finding names it.
        size: width and height by the file, in pixels; None if it does not say.
        shown: the classes that it shows.
        unverified: the classes that nobody checked.
        labels: all that is annotated, boxes included: identical images should agree in it.
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
    """What could be understood of an annotation file, and what could not.

    Attributes:
        source: where it comes from.
        images: the images whose entries have a name and, in a COCO file, an id.
        classes: the class names, in the order of the targets' columns.
        content: the parsed JSON, or the rows of a table as lists of cells; None if the file is unreadable. VOC's
            objects have COCO's form.
        findings: what is wrong with the file.
    """

    source: Source
    images: list[ListedImage] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    content: Any = None
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
        """Adds a finding about a file that a reader refuses, with the reader's message."""
        text = str(error).removeprefix(f"{self.source.annotation_file}: ")
        self.report("unreadable-file", "error", "", text)

    def uses(self, image: ListedImage) -> bool:
        """Whether training or scoring reads an image: without `keep_empty`, only if it has a label."""
        return self.source.keep_empty or bool(image.shown or image.unverified)

    @property
    def used_images(self) -> list[ListedImage]:
        """The images that training or scoring reads."""
        return [image for image in self.images if self.uses(image)]


def annotation_place(record: Any, position: int) -> str:
    """How a finding names an annotation: by its id, or by its position if it has none."""
    number = record.get("id") if isinstance(record, dict) else None
    return f"annotation {number}" if is_id(number) else f"annotations[{position}]"
