"""Reads PASCAL VOC's image list and XML files, and collects all faults. The strict reader stops at the first fault."""

from tresnet_downstream.coco_records import CocoAnnotation
from tresnet_downstream.data_check.boxes import check_boxes
from tresnet_downstream.data_check.listing import ListedImage, Listing, Source
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.voc import annotation_folder, listed_names, read_voc_image


def list_voc(source: Source) -> Listing:
    """Lists the images of a VOC list; an XML file that is missing or malformed becomes a finding."""
    listing = Listing(source)
    try:
        names, folder = listed_names(source.annotation_file), annotation_folder(source.annotation_file)
    except UserError as error:
        listing.report_unreadable(error)
        return listing
    annotations: list[CocoAnnotation] = []
    owners: list[ListedImage] = []
    seen: set[str] = set()
    numbers: dict[str, int] = {}
    for position, name in enumerate(names):
        path = folder / f"{name}.xml"
        try:
            image, objects = read_voc_image(path, name)
        except UserError as error:
            listing.report("malformed-entry", "error", name, str(error))
            continue
        if image["file_name"] in seen:
            text = f"its XML file names {image['file_name']!r}, as that of another image does"
            listing.report("repeated-name", "error", name, text, image=position)
        seen.add(image["file_name"])
        listed = ListedImage(position, image["file_name"], image["file_name"], (image["width"], image["height"]))
        listing.images.append(listed)
        for label, item in objects:
            number = numbers.setdefault(label, len(numbers))
            annotations.append(
                {
                    "id": len(annotations),
                    "category_id": number,
                    "iscrowd": item["difficult"],
                    "bbox": item["bbox"],
                    "area": item["area"],
                    "difficult": item["difficult"],
                }
            )
            owners.append(listed)
            if source.task == "classification":
                (listed.unverified if item["difficult"] else listed.shown).add(label)
        listed.unverified -= listed.shown
        listed.labels |= {*listed.shown, *(("unknown", label) for label in listed.unverified)}
    listing.classes = tuple(sorted(numbers))
    listing.content = {"annotations": annotations}
    if source.task == "detection":
        check_boxes(listing, list(enumerate(owners)), {number: label for label, number in numbers.items()})
    return listing
