"""A data set of images with boxes that checks its annotation file and images."""

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.structures import DetDataSample

from tresnet_downstream.bad_images import first_readable, require_images, require_on_bad_image
from tresnet_downstream.coco_records import CocoAnnotation, CocoInstances
from tresnet_downstream.detection.box_files import read_boxes
from tresnet_downstream.detection.loading import UNREADABLE, ImageRecord, LoadCheckedImage, with_our_reading
from tresnet_downstream.errors import UserError
from tresnet_downstream.image_paths import missing_images
from tresnet_downstream.images import BadImageError, read_image
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import DATASETS
from tresnet_downstream.running.unreadable import PASSED_OVER


@DATASETS.register_module()
class CocoBoxes(CocoDataset):
    """MMDetection's ``CocoDataset`` with checks, and with classes from the file if the config has none.

    Differences from MMDetection: labels are in the order of ``classes`` (MMDetection uses the order of the file, and
    leaves out classes that the file lacks). Boxes without area inside their image are dropped and counted, also from
    the ground truth in scoring. An image that cannot be read, or whose size differs from the annotation, is reported;
    the next image of the file replaces it, not a random one.

    Args:
        *args: see MMDetection, as for ``kwargs``.
        metainfo: ``classes`` of the labels, in order; without it, the classes of the file by category id.
        outside_paths: whether images may be outside of the folder ``data_prefix["img"]``, by ``..``, absolute paths or
            symbolic links below it. The folder itself may always be a link.
        on_bad_image: what to do if an image is unreadable: ``error`` raises, and ``skip`` uses the next readable image
            of the file. ``leave_out`` is for scoring: the sample is black and has the reason in ``unreadable``, and
            `DetectionMetric` leaves it out.
        trust_boxes: whether boxes are accepted as left, top, width, height in pixels although they look different, and
            image sizes may differ from the file's.
        **kwargs: ``ann_file`` (a COCO ``.json`` file or a VOC image list, ``.txt``), ``data_root``, ``data_prefix``,
            ``pipeline`` and so on. VOC's difficult objects are ignored in training and in scores.

    Attributes:
        dropped: number of dropped boxes by reason.
        left_out: reasons why images are not trained on, by file name.

    Raises:
        UserError: if the file is missing or malformed, has no box to train on, or lacks a class.
    """

    METAINFO: dict[str, object] = {}  # noqa: RUF012 - MMEngine's name and form

    def __init__(
        self,
        *args: object,
        metainfo: dict[str, object] | None = None,
        outside_paths: bool = False,
        on_bad_image: str = "error",
        trust_boxes: bool = False,
        **kwargs: Any,
    ) -> None:
        require_on_bad_image(on_bad_image)
        self.dropped: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        self.names: tuple[str, ...] = ()
        self.missing: list[str] = []
        self.outside_paths, self.on_bad_image, self.trust_boxes = outside_paths, on_bad_image, trust_boxes
        steps = kwargs.get("pipeline") or ()
        self.with_masks = any(isinstance(step, Mapping) and step.get("with_mask") for step in steps)
        kwargs["pipeline"] = [with_our_reading(step, trust_boxes) for step in steps]
        self.reads_here = any(isinstance(step, LoadCheckedImage) for step in kwargs["pipeline"])
        super().__init__(*args, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[ImageRecord]:
        """Reads and checks the file; returns a record for each image."""
        if not Path(self.ann_file).is_file():
            raise UserError(
                f"{self.ann_file}: no such annotation file; set `data_root` if the data is in another folder, or "
                "the data set's `ann_file` in the config"
            )
        file, self.dropped, beyond_edge = read_boxes(
            self.ann_file,
            labelled=not self.test_mode,
            masks=self.with_masks,
            trusted=self.trust_boxes,
            classes=self._metainfo.get("classes"),
        )
        self.names = tuple(file.names)
        classes = tuple(self._metainfo.get("classes") or file.classes)
        if unknown := [name for name in classes if name not in file.classes]:
            known = ", ".join(file.classes[:10]) + (", ..." if len(file.classes) > 10 else "")
            raise UserError(
                f"{self.ann_file}: has no class {', '.join(map(repr, unknown[:3]))}, which the config, the training "
                f"data or the checkpoint names; it has {known}"
            )
        self._metainfo["classes"] = classes
        if not self.test_mode:
            # MMDetection silently ignores these boxes in training; scores count them, as pycocotools does.
            wide = [each for each in file.content["annotations"] if min(each["bbox"][2:]) >= 1]
            if narrow := len(file.content["annotations"]) - len(wide):
                self.dropped["narrower than a pixel"] += narrow
                file.content["annotations"] = wide
        if self.dropped:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            tell(f"{self.ann_file}: {self.dropped.total():,} boxes dropped ({reasons})")
        if beyond_edge:
            tell(f"warning: {self.ann_file}: {beyond_edge}; tresnet check lists them")
        if not self.test_mode:
            self._require_boxes(file.content["annotations"])
        self.missing = missing_images(self._image_folder, file.names, self.ann_file, self.outside_paths)
        # MMDetection would read the file again with this class; it gets the content instead.
        self.COCOAPI = partial(OrderedCOCO.of, file.content)
        try:
            records: list[ImageRecord] = super().load_data_list()
        finally:
            del self.COCOAPI
        return records

    def filter_data(self) -> list[ImageRecord]:
        """Leaves out images as the config says and prints their number; checks that the others exist."""
        records: list[ImageRecord] = super().filter_data()
        ids, least = {record["img_id"] for record in records}, (self.filter_cfg or {}).get("min_size", 0)
        self.left_out = {
            self._name_of(record): (
                f"is smaller than {least} pixels" if min(record["width"], record["height"]) < least else "has no box"
            )
            for record in self.data_list
            if record["img_id"] not in ids
        }
        if self.left_out:
            tell(
                f"{self.ann_file}: {len(self.left_out):,} of {len(self.data_list):,} images left out (no box of the "
                "classes, or too small); left_out_train.csv in the work dir lists them"
            )
        if not records and self.test_mode:
            raise UserError(f"{self.ann_file}: lists no image")
        if not records:
            classes = ", ".join(self._metainfo["classes"][:10])
            raise UserError(
                f"{self.ann_file}: no image is left to train on: none is large enough and has a box of {classes}"
            )
        if self.reads_here and self.missing:
            used = set(map(self._name_of, records))
            missing = [name for name in self.missing if os.path.normpath(name) in used]
            require_images("data_prefix.img", self._image_folder, missing, len(records), self.on_bad_image)
        return records

    def prepare_data(self, idx: int) -> object:
        """Loads and prepares an image, or its replacement according to ``on_bad_image``.

        Raises:
            UserError: if the image is missing or unreadable, and ``on_bad_image`` is ``error``.
        """
        alike, position = self._alike(idx)
        sample, passed_over, reason = first_readable(
            lambda place: self._prepared(self.get_data_info(int(alike[place]))),
            lambda place: self._name_of(self.get_data_info(int(alike[place]))),
            position,
            len(alike),
            self.on_bad_image,
        )
        if reason:
            record: ImageRecord = self.get_data_info(idx)
            sample = self._prepared({**record, UNREADABLE: reason})
            _note(sample, UNREADABLE, {self._name_of(record): reason})
        elif passed_over:
            _note(sample, PASSED_OVER, passed_over)
        return sample

    def image_paths(self) -> list[str]:
        """The paths of the file's images that are not left out."""
        names = (name for name in self.names if name not in self.left_out)
        return [os.path.join(self._image_folder, name) for name in names]

    def _alike(self, idx: int) -> tuple[Sequence[int] | np.ndarray, int]:
        """The indices of images that may replace an image, in order, and the position of the image among them."""
        return range(len(self)), idx

    def _prepared(self, record: ImageRecord) -> object:
        try:
            return self.pipeline(record)
        except BadImageError:
            raise
        except Exception:
            read_image(record["img_path"])  # raises a one-line error if the image caused the exception
            raise

    def _require_boxes(self, annotations: Sequence[CocoAnnotation]) -> None:
        """Raises UserError if no box can be trained on."""
        if not annotations:
            raise UserError(f"{self.ann_file}: has no boxes; training needs some")
        if all(annotation["iscrowd"] for annotation in annotations):
            raise UserError(
                f"{self.ann_file}: all {len(annotations):,} boxes are crowds (`iscrowd` is 1), which training ignores; "
                "write 0 if a box contains one object"
            )

    @property
    def _image_folder(self) -> str:
        return self.data_prefix.get("img") or "."

    def _name_of(self, record: ImageRecord) -> str:
        return os.path.relpath(record["img_path"], self._image_folder)


def _note(sample: object, key: str, reasons: Mapping[str, str]) -> None:
    """Stores in a sample which images were skipped, or why it is not scored."""
    packed = sample.get("data_samples") if isinstance(sample, Mapping) else None
    views: list[DetDataSample] = packed if isinstance(packed, list) else [packed]  # of test-time augmentation
    if all(hasattr(view, "set_metainfo") for view in views):
        for view in views:
            view.set_metainfo({key: json.dumps(reasons)})
    elif key == UNREADABLE:
        raise UserError(f"{next(iter(reasons.values()))}; on_bad_image needs PackDetInputs to leave it out")
    else:
        # Data sets that mix several images do not pass this information on.
        for name in reasons.keys() - _reported_images:
            _reported_images.add(name)
            tell(f"{reasons[name]}; skipped")


# Names of skipped images that this process, usually a worker, has reported.
_reported_images: set[str] = set()


class OrderedCOCO(COCO):
    """MMDetection's COCO index, except that categories are in the order of the given names, and nothing is printed."""

    @classmethod
    def of(cls, content: CocoInstances, _: str = "") -> "OrderedCOCO":
        """An index of the content of a file."""
        with contextlib.redirect_stdout(io.StringIO()):
            index = cls()
            index.dataset = content
            index.createIndex()
        index.img_ann_map, index.cat_img_map = index.imgToAnns, index.catToImgs
        return index

    def get_cat_ids(
        self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()
    ) -> list[int]:
        """The category ids of the given names, in their order; of all categories if no names are given."""
        by_name = {category["name"]: category["id"] for category in self.dataset["categories"]}
        return [by_name[name] for name in cat_names] if cat_names else sorted(by_name.values())
