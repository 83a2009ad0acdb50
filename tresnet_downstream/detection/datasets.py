"""COCO boxes, checked: what is wrong with a file is said in one line, and what is left out is counted."""

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

from tresnet_downstream.bad_images import first_readable, require_images, require_on_bad_image
from tresnet_downstream.detection.box_files import read_boxes
from tresnet_downstream.detection.loading import UNREADABLE, LoadCheckedImage, with_our_reading
from tresnet_downstream.errors import UserError
from tresnet_downstream.image_paths import missing_images
from tresnet_downstream.notices import tell
from tresnet_downstream.pictures import BadImageError, read_image
from tresnet_downstream.registry import DATASETS
from tresnet_downstream.running.unreadable import PASSED_OVER


@DATASETS.register_module()
class CocoBoxes(CocoDataset):
    """MMDetection's ``CocoDataset``, with checks, and with classes from the file where the config names none.

    Departures: labels stand in the order of ``classes`` (MMDetection takes the file's order whatever the config
    says, and leaves out classes that the file lacks); boxes without area inside their picture are dropped from
    the scoring's ground truth too, and counted; a picture that cannot be read, or has another size than the file
    says, is named; in its place comes the next one of the file, not a random one.

    Args:
        *args: see MMDetection, as for ``kwargs``.
        metainfo: ``classes`` of the labels, in order; without it the file's, by category id.
        outside_paths: whether the names of images may lead out of the folder ``data_prefix["img"]``, by ``..``,
            absolute paths or symbolic links below it; the folder itself may always be a link.
        on_bad_image: at an unreadable image, ``error`` raises and ``skip`` takes the next readable one in the order
            of the file. ``leave_out`` is for scoring: the sample is black and says why in ``unreadable``, and
            `DetectionMetric` leaves it out.
        trust_boxes: whether boxes are taken for left, top, width, height in pixels also where they look like
            something else, and sizes of pictures may differ from the file's.
        **kwargs: ``ann_file`` (COCO's ``.json`` or VOC's list, ``.txt``), ``data_root``, ``data_prefix``, ``pipeline``
            and so on. VOC's objects that are marked as difficult are passed over, in training and in scores.

    Attributes:
        dropped: how many boxes were dropped, by reason.
        left_out: why pictures of the file are not trained on, by file name.

    Raises:
        UserError: a file that is missing or malformed, has no box to train on, or lacks a class.
    """

    METAINFO: dict[str, Any] = {}  # noqa: RUF012 - MMEngine's name and form

    def __init__(
        self,
        *args: Any,
        metainfo: dict[str, Any] | None = None,
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

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads and checks the file; gives a record for each picture."""
        if not Path(self.ann_file).is_file():
            raise UserError(
                f"{self.ann_file}: no such annotation file; set `data_root` if the data set lies elsewhere, or "
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
            # MMDetection trains on none of them, and says nothing; scores count them, as pycocotools does.
            wide = [each for each in file.content["annotations"] if min(each["bbox"][2:]) >= 1]
            if narrow := len(file.content["annotations"]) - len(wide):
                self.dropped["narrower than a pixel"] += narrow
                file.content["annotations"] = wide
        if self.dropped:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            tell(f"{self.ann_file}: {self.dropped.total():,} boxes dropped ({reasons})")
        if beyond_edge:
            tell(f"warning: {self.ann_file}: {beyond_edge}; tresnet check names them")
        if not self.test_mode:
            self._require_boxes(file.content["annotations"])
        self.missing = missing_images(self._image_folder, file.names, self.ann_file, self.outside_paths)
        # MMDetection reads the file itself, by the class that stands here; once is enough.
        self.COCOAPI = partial(OrderedCOCO.of, file.content)
        try:
            records: list[dict[str, Any]] = super().load_data_list()
        finally:
            del self.COCOAPI
        return records

    def filter_data(self) -> list[dict[str, Any]]:
        """Leaves out pictures as the config says, and says how many; some must stay, and their files must be there."""
        pictures: list[dict[str, Any]] = super().filter_data()
        ids, least = {picture["img_id"] for picture in pictures}, (self.filter_cfg or {}).get("min_size", 0)
        self.left_out = {
            self._name_of(picture): (
                f"is smaller than {least} pixels" if min(picture["width"], picture["height"]) < least else "has no box"
            )
            for picture in self.data_list
            if picture["img_id"] not in ids
        }
        if self.left_out:
            tell(
                f"{self.ann_file}: {len(self.left_out):,} of {len(self.data_list):,} pictures left out (no box of the "
                "classes, or too small); left_out_train.csv in the work dir names them"
            )
        if not pictures and self.test_mode:
            raise UserError(f"{self.ann_file}: lists no image")
        if not pictures:
            classes = ", ".join(self._metainfo["classes"][:10])
            raise UserError(
                f"{self.ann_file}: no picture is left to train on: none is large enough with a box of {classes}"
            )
        if self.reads_here and self.missing:
            used = set(map(self._name_of, pictures))
            missing = [name for name in self.missing if os.path.normpath(name) in used]
            require_images("data_prefix.img", self._image_folder, missing, len(pictures), self.on_bad_image)
        return pictures

    def prepare_data(self, idx: int) -> Any:
        """Loads and prepares a picture, or what ``on_bad_image`` says in the place of one that cannot be read.

        Raises:
            UserError: if it is missing or cannot be read, and ``on_bad_image`` is ``error``.
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
            record = self.get_data_info(idx)
            sample = self._prepared({**record, UNREADABLE: reason})
            _note(sample, UNREADABLE, {self._name_of(record): reason})
        elif passed_over:
            _note(sample, PASSED_OVER, passed_over)
        return sample

    def image_paths(self) -> list[str]:
        """The paths of the images of the file that are not left out."""
        kept = (name for name in self.names if name not in self.left_out)
        return [os.path.join(self._image_folder, name) for name in kept]

    def _alike(self, idx: int) -> tuple[Sequence[int] | np.ndarray, int]:
        """The places of pictures that may stand in the place of one, in order, and where it is itself among them."""
        return range(len(self)), idx

    def _prepared(self, record: dict[str, Any]) -> Any:
        try:
            return self.pipeline(record)
        except BadImageError:
            raise
        except Exception:
            read_image(record["img_path"])  # raises, in one line, if the picture is to blame
            raise

    def _require_boxes(self, annotations: Sequence[Mapping[str, Any]]) -> None:
        """Raises UserError if there is nothing to train on."""
        if not annotations:
            raise UserError(f"{self.ann_file}: has no boxes; training needs some")
        if all(annotation["iscrowd"] for annotation in annotations):
            raise UserError(
                f"{self.ann_file}: all {len(annotations):,} boxes are crowds (`iscrowd` is 1), which training passes "
                "over; write 0 where a box holds one object"
            )

    @property
    def _image_folder(self) -> str:
        return self.data_prefix.get("img") or "."

    def _name_of(self, record: Mapping[str, Any]) -> str:
        return os.path.relpath(record["img_path"], self._image_folder)


def _note(sample: Any, key: str, reasons: Mapping[str, str]) -> None:
    """Writes into a sample which pictures were passed over, or why it is not to be scored."""
    packed: Any = sample.get("data_samples") if isinstance(sample, Mapping) else None
    views = packed if isinstance(packed, list) else [packed]  # of test-time augmentation
    if all(hasattr(view, "set_metainfo") for view in views):
        for view in views:
            view.set_metainfo({key: json.dumps(reasons)})
    elif key == UNREADABLE:
        raise UserError(f"{next(iter(reasons.values()))}; on_bad_image cannot leave it out, since it is not packed")
    else:
        # What mixes several pictures packs them without our note.
        for name in reasons.keys() - _told:
            _told.add(name)
            tell(f"{reasons[name]}; passed over")


# The pictures that were told by this process, a worker mostly.
_told: set[str] = set()


class OrderedCOCO(COCO):
    """MMDetection's COCO index, which gives categories in the order of the names asked for, and prints nothing."""

    @classmethod
    def of(cls, content: dict[str, Any], _: str = "") -> "OrderedCOCO":
        """An index of what a file holds."""
        with contextlib.redirect_stdout(io.StringIO()):
            index = cls()
            index.dataset = content
            index.createIndex()
        index.img_ann_map, index.cat_img_map = index.imgToAnns, index.catToImgs
        return index

    def get_cat_ids(
        self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()
    ) -> list[int]:
        """The ids of these names, in their order; of all categories if none is given."""
        by_name = {category["name"]: category["id"] for category in self.dataset["categories"]}
        return [by_name[name] for name in cat_names] if cat_names else sorted(by_name.values())
