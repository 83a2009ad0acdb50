"""Lists the images of a file with the strict reader of its format; the reader's error message becomes a finding."""

import numpy as np

from tresnet_downstream.data_check.boxes import check_boxes
from tresnet_downstream.data_check.listing import ListedImage, Listing, Source
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import format_of, read_file


def list_any(source: Source) -> Listing:
    """Lists the images of a file of any format."""
    listing = Listing(source)
    try:
        file = read_file(source.annotation_file)
    except UserError as error:
        listing.report_unreadable(error)
        return listing
    if source.task == "detection" and not format_of(source.annotation_file).has_boxes:
        listing.report("unreadable-file", "error", "", "has no boxes")
        return listing
    sizes: list[tuple[int, int] | None] = [None] * len(file.names)
    if file.content:
        sizes = [(image["width"], image["height"]) for image in file.content["images"]]
    listing.images = [
        ListedImage(place, name, name, size) for place, (name, size) in enumerate(zip(file.names, sizes, strict=True))
    ]
    owners = [listing.images[place] for place in file.image_of]
    listing.classes, listing.content = file.classes, file.content
    if source.task == "detection":
        names = {category["id"]: category["name"] for category in file.content["categories"]}
        check_boxes(listing, list(enumerate(owners)), names)
        return listing
    doubtful = file.unknown | file.difficult
    for image, number, is_doubtful in zip(owners, file.class_of, doubtful, strict=True):
        (image.unverified if is_doubtful else image.shown).add(file.classes[number])
    for place in np.unique(file.image_of):
        image = listing.images[place]
        image.unverified -= image.shown
        image.labels |= {*image.shown, *(("unknown", label) for label in image.unverified)}
    return listing
