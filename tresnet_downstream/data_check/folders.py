"""Lists class folders and collects all faults. The strict reader stops at the first fault."""

import os

from tresnet_downstream.data_check.listing import ListedImage, Listing, Source
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.class_folders import class_names_of, images_of_class


def list_folders(source: Source) -> Listing:
    """Lists the images of class folders; a class without images becomes a finding."""
    listing = Listing(source)
    try:
        listing.classes = class_names_of(source.annotation_file)
    except UserError as error:
        listing.report_unreadable(error)
        return listing
    listing.content = {}
    for name in listing.classes:
        paths = images_of_class(source.annotation_file, name)
        if not paths and source.is_training:
            listing.report("malformed-entry", "error", name, "the folder of this class has no image")
        for path in paths:
            image = ListedImage(len(listing.images), path, path, None, {name}, set(), {name})
            listing.images.append(image)
    return listing


def is_folder(source: Source) -> bool:
    """Whether a source consists of class folders: its annotation file is the image folder itself."""
    return os.path.realpath(source.annotation_file) == os.path.realpath(source.image_folder)
