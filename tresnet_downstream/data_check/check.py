"""The check of a data set: every annotation and every image of its splits."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tresnet_downstream.data_check import near
from tresnet_downstream.data_check.any_format import list_any
from tresnet_downstream.data_check.classes import check_classes
from tresnet_downstream.data_check.coco import list_coco
from tresnet_downstream.data_check.findings import KINDS, SEVERITIES, Finding, Severity
from tresnet_downstream.data_check.folders import is_folder, list_folders
from tresnet_downstream.data_check.images import File, Look, look_at_all
from tresnet_downstream.data_check.listing import ListedImage, Listing, Source
from tresnet_downstream.data_check.splits import Seen, check_duplicates, check_near_duplicates
from tresnet_downstream.data_check.table import list_table
from tresnet_downstream.data_check.voc import list_voc
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.progress import Track, silently
from tresnet_downstream.formats import format_of
from tresnet_downstream.image_paths import lies_outside

# Number of bits, of 64. For 160 photographs of MS-COCO, other sizes and qualities of an image differ in at most 4 bits,
# and different images in at least 16. On PASCAL VOC 2007, pairs with up to 6 differing bits show the same scene.
MAX_DISTANCE = 6


@dataclass(frozen=True)
class DataReport:
    """The result of a check.

    Attributes:
        listings: the splits with their findings.
        num_files: number of different image files that were read.
        near_duplicates: whether similar images were searched for.
    """

    listings: list[Listing]
    num_files: int
    near_duplicates: bool

    @property
    def findings(self) -> list[Finding]:
        """All findings: errors first, then by kind and split."""
        order = {kind: place for place, kind in enumerate(KINDS)}
        findings = [finding for listing in self.listings for finding in listing.findings]
        return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), order[finding.kind]))

    @property
    def has_errors(self) -> bool:
        """Whether a finding is an error, with which training or scoring would stop or give wrong results."""
        return any(finding.severity == "error" for finding in self.findings)


def check_data(
    sources: Sequence[Source], workers: int = 0, max_distance: int = MAX_DISTANCE, track: Track = silently
) -> DataReport:
    """Reads all annotations and images of several splits, and collects all faults.

    Args:
        sources: the splits, the training split first; the others must have its classes.
        workers: number of processes that read images. They are spawned, so a script must guard its call by
            ``if __name__ == "__main__"``. 0 reads in this process.
        max_distance: the number of bits, of 64, in which the perceptual hashes of images that look alike may differ;
            0 to 15. They are computed if the package ImageHash is installed.
        track: yields the items and shows progress.

    Raises:
        UserError: a file is of a format that is not read, or a number is out of range.
    """
    if workers < 0:
        raise UserError(f"`workers` {workers}: give 0 or more")
    if not 0 <= max_distance <= 15:
        raise UserError(f"`max_distance` {max_distance}: give a number of bits from 0 to 15")
    listings = _listings(sources)
    with_hash = near.can_hash()
    files = {
        file: None for listing in listings if _has_folder(listing) for file in map(_file_of(listing), listing.images)
    }
    steps = look_at_all(list(files), workers, with_hash)
    looks = dict(track(steps, len(files), "reading images"))
    seen = [one for listing in listings if _has_folder(listing) for one in _check_images(listing, looks)]
    check_duplicates(seen)
    if with_hash:
        check_near_duplicates(seen, max_distance)
    return DataReport(listings, len(files), with_hash)


def _listings(sources: Sequence[Source]) -> list[Listing]:
    """Lists all sources; a split that reads the file of an earlier split is reported and not checked further."""
    listings: list[Listing] = []
    expected: dict[str, tuple[str, ...]] = {}
    for source in sources:
        same = next((one.source for one in listings if _same_file(one.source, source)), None)
        if same is not None:
            if same.is_training and not source.is_training:
                listing = Listing(source)
                listing.report("same-file", "error", "", f"{source.split} reads the annotation file of {same.split}")
                listings.append(listing)
            continue
        listing = _list(source)
        check_classes(listing, source.classes or expected.get(source.task))
        if listing.classes:
            expected.setdefault(source.task, listing.classes)
        listings.append(listing)
    return listings


# Formats in which all faults are found. For other formats, only the first fault is reported, by their reader.
_LISTERS = {".json": list_coco, ".csv": list_table, ".txt": list_voc}


def _list(source: Source) -> Listing:
    if is_folder(source):
        listing = list_folders(source)
    else:
        form = format_of(source.annotation_file)  # raises UserError for an unknown suffix
        suffix = os.path.splitext(source.annotation_file)[1].lower()
        without_boxes = source.task == "detection" and not form.has_boxes
        listing = (list_any if without_boxes else _LISTERS.get(suffix, list_any))(source)
    if not os.path.isdir(source.image_folder) and not is_folder(source):
        listing.report("missing-folder", "error", "", f"there is no folder {source.image_folder}")
    return listing


def _check_images(listing: Listing, looks: dict[File, Look]) -> list[Seen]:
    """Reports the unusable image files of a split, and returns the usable ones."""
    seen = []
    file_of = _file_of(listing)
    # If all images are missing, training cannot replace any.
    none_is_there = all(looks[file_of(image)].problem == "missing-image" for image in listing.images)
    tolerated = listing.source.tolerates_bad_images and not none_is_there
    for image in listing.images:
        look = looks[file_of(image)]
        if look.outside:
            # Training refuses files outside of the folder, and accepts names that lead out and back in.
            is_read = listing.source.task == "detection" or listing.uses(image)
            refused = is_read and not listing.source.outside_paths and lies_outside(*file_of(image))
            text = f"{look.outside}; outside_paths=True allows it" if refused else look.outside
            listing.report("name-leaves-folder", "error" if refused else "warning", image.place, text, image.position)
        if look.problem:
            is_tolerated = tolerated and look.problem in ("missing-image", "broken-image")
            harmless = is_tolerated or not listing.uses(image)
            severity: Severity = "warning" if harmless else "error"
            listing.report(look.problem, severity, image.place, look.text, image.position)
            continue
        if listing.source.task == "detection" and image.size and look.size != image.size:
            (width, height), by_file = look.size or (0, 0), f"{image.size[0]} x {image.size[1]}"
            text = f"is {width} x {height}, but {by_file} in the annotation file, so its boxes may be wrong"
            harmless = tolerated or listing.source.trusts_boxes or not listing.uses(image)
            listing.report("other-size", "warning" if harmless else "error", image.place, text, image.position)
        seen.append(Seen(listing, image, look))
    return seen


def _same_file(one: Source, other: Source) -> bool:
    return os.path.realpath(one.annotation_file) == os.path.realpath(other.annotation_file) and (
        os.path.realpath(one.image_folder) == os.path.realpath(other.image_folder)
    )


def _has_folder(listing: Listing) -> bool:
    return all(finding.kind != "missing-folder" for finding in listing.findings)


def _file_of(listing: Listing) -> Callable[[ListedImage], File]:
    folder = os.path.realpath(listing.source.image_folder)
    return lambda image: (folder, image.name)
