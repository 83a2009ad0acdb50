"""Writes an annotation file without the faults that the check reported and can remove."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tresnet_downstream.box_faults import clipped
from tresnet_downstream.coco_records import CocoAnnotation, CocoInstances
from tresnet_downstream.coco_shapes import is_id
from tresnet_downstream.data_check.findings import Finding
from tresnet_downstream.data_check.listing import Listing
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import named_if_unwritable, whole_file

_OF_ANNOTATIONS = ("unknown-id", "box-without-area", "box-outside")
_CLIPPED = "box-beyond-edge"


def cleaned_paths(listings: Iterable[Listing], out: str) -> list[tuple[Listing, Path]]:
    """The files that cleaning several splits writes into a folder: ``train.json``, ``val.csv``, ..."""
    paths: list[tuple[Listing, Path]] = []
    taken: Counter[str] = Counter()
    for listing in listings:
        if listing.content is not None or not listing.source.can_be_cleaned:
            split, suffix = listing.source.split, Path(listing.source.annotation_file).suffix
            taken[split] += 1
            number = f"_{taken[split]}" if taken[split] > 1 else ""
            paths.append((listing, Path(out) / f"{split}{number}{suffix}"))
    return paths


def require_new(paths: Iterable[Path], overwrite: bool) -> None:
    """Raises UserError if one of the files exists and may not be overwritten."""
    for path in paths:
        if os.path.lexists(path) and not overwrite:
            raise UserError(f"{path}: exists already; name another place, or set `overwrite`")


def write_cleaned(listing: Listing, path: Path, overwrite: bool = False) -> Counter[str]:
    """Writes the annotation file of a split without the findings of the kinds that are ``removable``.

    Removes images that are missing, broken or have an impossible name, that lie outside of the folder where this is
    not allowed, that duplicate an earlier image, or that are also validation or test images, with their annotations.
    Removes annotations that refer to unknown entries, or whose box has no area or lies outside of its image. Other
    boxes are clipped to the image. Everything else is kept.

    Args:
        listing: the split, after the check.
        path: the file to write, in the format of the one that was read.
        overwrite: whether it may exist.

    Returns:
        how many images and annotations were removed or changed, by kind of finding; and the annotations of removed
        images as ``annotations of removed images``.

    Raises:
        UserError: the file that was read cannot be cleaned, no image would be left, or the path cannot be written.
    """
    require_new([path], overwrite)
    if not listing.source.can_be_cleaned:
        raise UserError(f"{listing.source.annotation_file}: only COCO files and tables can be cleaned")
    if listing.content is None:
        raise UserError(f"{listing.source.annotation_file}: cannot be cleaned, because it cannot be read")
    if any(finding.kind == "box-convention" for finding in listing.findings):
        raise UserError(
            f"{listing.source.annotation_file}: cannot be cleaned before its boxes are converted to left, top, width, "
            "height in pixels"
        )
    removable = [finding for finding in listing.findings if finding.is_removable]
    if isinstance(listing.content, list):
        text, counts = _clean_table(listing.content, removable)
    else:
        text, counts = _clean_coco(listing, listing.content, removable)
    removed = {finding.image for finding in removable if _removes_image(finding)}
    if len(removed) == len(listing.images):
        raise UserError(f"{listing.source.annotation_file}: no image would be left after cleaning")
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="")
    return counts


def _removes_image(finding: Finding) -> bool:
    return finding.kind not in _OF_ANNOTATIONS and finding.kind != _CLIPPED


def _first_reasons(findings: Iterable[Finding]) -> dict[int, str]:
    """For each image to remove, by position, the kind of the first finding that requires it."""
    reasons: dict[int, str] = {}
    for finding in findings:
        if _removes_image(finding) and finding.image is not None:
            reasons.setdefault(finding.image, finding.kind)
    return reasons


def _clean_table(rows: list[list[str]], findings: list[Finding]) -> tuple[str, Counter[str]]:
    reasons = _first_reasons(findings)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row for place, row in enumerate(rows) if place not in reasons)
    return text.getvalue(), Counter(reasons.values())


def _clean_coco(listing: Listing, content: CocoInstances, findings: list[Finding]) -> tuple[str, Counter[str]]:
    reasons = _first_reasons(findings)
    counts = Counter(reasons.values())
    images = [image for position, image in enumerate(content["images"]) if position not in reasons]
    # Only of listed images; the ids of others may have any type.
    ids = {image.position: content["images"][image.position]["id"] for image in listing.images}
    kept_ids = {number for position, number in ids.items() if position not in reasons}
    removed_ids = {ids[position] for position in reasons} - kept_ids
    faults = {finding.annotation: finding for finding in findings if not _removes_image(finding)}
    sizes = {image.position: image.size for image in listing.images}
    annotations = []
    for position, annotation in enumerate(content["annotations"]):
        fault = faults.get(position)
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if is_id(number) and number in removed_ids:
            counts["annotations of removed images"] += 1
        elif fault is None:
            annotations.append(annotation)
        else:
            counts[fault.kind] += 1
            if fault.kind == _CLIPPED:
                size = sizes[fault.image or 0]
                assert size is not None
                annotations.append(_clip(annotation, size))
    return json.dumps({**content, "images": images, "annotations": annotations}), counts


def _clip(annotation: CocoAnnotation, size: tuple[int, int]) -> CocoAnnotation:
    box = clipped(annotation["bbox"], size)
    cut = annotation.copy()
    cut["bbox"] = box
    # If there is a segmentation, `area` is the area of the segmentation.
    if not annotation.get("segmentation") and "area" in annotation:
        cut["area"] = box[2] * box[3]
    return cut
