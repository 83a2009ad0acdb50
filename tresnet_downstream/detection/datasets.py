"""COCO boxes, checked: what is wrong with a file is said in one line, and what is left out is counted."""

import contextlib
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

from tresnet_downstream.coco_files import CocoFile, read_coco_file, refuse_duplicates, whole_numbers
from tresnet_downstream.coco_shapes import is_box, is_crowd_flag, is_mask, is_number
from tresnet_downstream.errors import UserError
from tresnet_downstream.image_paths import missing_images
from tresnet_downstream.limits import excess, limit
from tresnet_downstream.notices import tell
from tresnet_downstream.pictures import read_image
from tresnet_downstream.registry import DATASETS

_LOADERS = ("LoadImageFromFile", "mmcv.LoadImageFromFile", "mmdet.LoadImageFromFile", LoadImageFromFile)
_LOCAL = {"backend": "local"}


@DATASETS.register_module()
class CocoBoxes(CocoDataset):
    """MMDetection's ``CocoDataset``, with checks, and with classes from the file where the config names none.

    Departures: labels stand in the order of ``classes`` (MMDetection takes the file's order whatever the config
    says, and leaves out classes that the file lacks); boxes without area inside their picture are dropped from
    the scoring's ground truth too, and counted; a picture that cannot be read is named.

    Args:
        *args: see MMDetection, as for ``kwargs``.
        metainfo: ``classes`` of the labels, in order; without it the file's, by category id.
        outside_paths: whether the names of images may lead out of the folder ``data_prefix["img"]``, by ``..``,
            absolute paths or symbolic links below it; the folder itself may always be a link.
        **kwargs: ``ann_file``, ``data_root``, ``data_prefix``, ``pipeline`` and so on.

    Attributes:
        dropped: how many boxes were dropped, by reason.
        left_out: why pictures of the file are not trained on, by file name.

    Raises:
        UserError: a file that is missing or malformed, has no box to train on, or lacks a class.
    """

    METAINFO: dict[str, Any] = {}  # noqa: RUF012 - MMEngine's name and form

    def __init__(
        self, *args: Any, metainfo: dict[str, Any] | None = None, outside_paths: bool = False, **kwargs: Any
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        self.outside_paths = outside_paths
        steps = kwargs.get("pipeline") or ()
        self.with_masks = any(isinstance(step, Mapping) and step.get("with_mask") for step in steps)
        kwargs["pipeline"] = [_with_our_reading(step) for step in steps]
        super().__init__(*args, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads and checks the file; gives a record for each picture."""
        if not Path(self.ann_file).is_file():
            raise UserError(
                f"{self.ann_file}: no such annotation file; set `data_root` if the data set lies elsewhere, or "
                "the data set's `ann_file` in the config"
            )
        file, self.dropped = read_boxes(self.ann_file, labelled=not self.test_mode, masks=self.with_masks)
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
        if not self.test_mode and not file.content["annotations"]:
            raise UserError(f"{self.ann_file}: has no boxes; training needs some")
        missing_images(self.data_prefix.get("img") or ".", file.names, self.ann_file, self.outside_paths)
        # MMDetection reads the file itself, by the class that stands here; once is enough.
        self.COCOAPI = partial(OrderedCOCO.of, file.content)
        try:
            records: list[dict[str, Any]] = super().load_data_list()
        finally:
            del self.COCOAPI
        return records

    def filter_data(self) -> list[dict[str, Any]]:
        """Leaves out pictures as the config says, and says how many; some must stay."""
        pictures: list[dict[str, Any]] = super().filter_data()
        ids, least = {picture["img_id"] for picture in pictures}, (self.filter_cfg or {}).get("min_size", 0)
        self.left_out = {
            os.path.relpath(picture["img_path"], self.data_prefix.get("img") or "."): (
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
        if not pictures:
            classes = ", ".join(self._metainfo["classes"][:10])
            raise UserError(
                f"{self.ann_file}: no picture is left to train on: none is large enough with a box of {classes}"
            )
        return pictures

    def prepare_data(self, idx: int) -> Any:
        """Loads and prepares a picture.

        Raises:
            BadImageError: if it is missing or cannot be read.
        """
        try:
            return super().prepare_data(idx)
        except Exception:
            read_image(self.get_data_info(idx)["img_path"])  # raises, in one line, if the picture is to blame
            raise


class LoadCheckedImage(LoadImageFromFile):
    """MMDetection's loading of a picture, by `read_image`: a damaged or oversized file is refused, not filled up.

    It takes the place of MMDetection's step in `CocoBoxes`, where that reads local files as 8-bit colours.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds ``img`` (BGR, of shape (height, width, 3)) and its sizes.

        Raises:
            BadImageError: as `read_image`.
        """
        image = np.ascontiguousarray(read_image(results["img_path"])[:, :, ::-1])
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


def _with_our_reading(step: Any) -> Any:
    if not isinstance(step, Mapping) or step.get("type") not in _LOADERS:
        return step
    options = {key: value for key, value in step.items() if key != "type" and value is not None}
    is_usual = options.get("color_type", "color") == "color" and options.get("imdecode_backend", "cv2") == "cv2"
    backend = options.pop("backend_args", None) or options.pop("file_client_args", None)
    if not is_usual or options.get("ignore_empty") or (backend or _LOCAL) != _LOCAL:
        return step
    return LoadCheckedImage(**options)


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


def read_boxes(path: str, labelled: bool = True, masks: bool = False) -> tuple[CocoFile, Counter[str]]:
    """Reads a COCO file and takes out of its content the boxes that have no area inside their picture.

    An area that is missing or not above 0 becomes that of the box.

    Args:
        path: the file.
        labelled: whether it must list annotations; those of COCO's test pictures do not.
        masks: whether each annotation must have a mask.

    Returns:
        the file, and how many boxes were taken out, by reason.

    Raises:
        UserError: the file is missing or malformed, or does not say how large its pictures are, or a box, a mask or
            `iscrowd` is none.
    """
    file = read_coco_file(path, labelled)
    for key in ("width", "height"):
        if (whole_numbers(path, "images", file.content["images"], key) < 1).any():
            raise UserError(f"{path}: an image has a `{key}` below 1; boxes are measured against it")
    for image in file.content["images"]:
        if image["width"] * image["height"] > limit("pixels"):
            size = f"{image['width']} x {image['height']}"
            raise UserError(f"{path}: image {image['file_name']!r}: {excess('pixels', f'{size} are too many pixels')}")
    refuse_duplicates(
        path, "annotation id", whole_numbers(path, "annotations", file.content["annotations"], "id").tolist()
    )
    dropped: Counter[str] = Counter()
    annotations = []
    for annotation, image_of in zip(file.content["annotations"], file.image_of, strict=True):
        box, image = annotation.get("bbox"), file.content["images"][image_of]
        if not is_box(box):
            numbers = "four numbers: left, top, width, height"
            raise UserError(f"{path}: annotation {annotation['id']}: `bbox` is {box!r}, not {numbers}")
        if not is_crowd_flag(annotation.get("iscrowd", 0)):
            raise UserError(
                f"{path}: annotation {annotation['id']}: `iscrowd` is {annotation['iscrowd']!r}; write 0 or 1"
            )
        left, top, width, height = box
        if width <= 0 or height <= 0:
            dropped["without area"] += 1
        elif min(left + width, image["width"]) <= max(left, 0) or min(top + height, image["height"]) <= max(top, 0):
            dropped["outside the picture"] += 1
        else:
            area = annotation.get("area")
            # MMDetection passes over a box whose area is 0, and scores are parted by it.
            area = area if is_number(area) and area > 0 else width * height
            if masks and not is_mask(annotation.get("segmentation"), image["height"], image["width"]):
                what = "is no polygons of three points or more near the picture, nor run lengths of its size"
                raise UserError(f"{path}: annotation {annotation['id']}: `segmentation` {what}")
            annotations.append({"iscrowd": 0, **annotation, "area": area})
    file.content["annotations"] = annotations
    return file, dropped
