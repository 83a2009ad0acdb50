"""Checks the classes of a split: their names, and whether each class has images with and without it."""

from collections import Counter

from tresnet_downstream.data_check.folders import is_folder
from tresnet_downstream.data_check.listing import Listing


def check_classes(listing: Listing, expected: tuple[str, ...] | None) -> None:
    """Reports missing and unknown classes, classes in no image or in all images, and images without a label.

    Args:
        listing: findings are added to it; a table also gets the expected classes.
        expected: the classes of the training data or of the config; None uses the classes of the file.
    """
    if listing.content is None:
        return
    if not listing.images:
        listing.report("no-images", "error", "", "lists no image")
    if not listing.classes:
        listing.report("no-classes", "error", "", "lists no class")
    if expected is not None:
        _compare(listing, expected)
    if listing.source.task == "classification":
        _check_targets(listing)
    else:
        _check_boxes(listing)


def _compare(listing: Listing, expected: tuple[str, ...]) -> None:
    # COCO files list all classes; in files of other formats, only classes that occur are known.
    if not listing.source.annotation_file.lower().endswith(".json"):
        # Its targets have the columns of the training data; it may have fewer classes.
        for image in listing.images:
            for label in sorted((image.shown | image.unverified) - set(expected)):
                text = f"the label {label!r} is not among the {len(expected)} classes of the training data"
                listing.report("other-classes", "error", image.place, text, image.position)
        if is_folder(listing.source) and (lacking := [name for name in expected if name not in listing.classes]):
            listing.report("other-classes", "error", "", f"has no folder of the class {_named(lacking)}")
        listing.classes = expected
        return
    missing = [name for name in expected if name not in listing.classes]
    foreign = [name for name in listing.classes if name not in expected]
    if missing:
        listing.report("other-classes", "error", "", f"has no class {_named(missing)}")
    if listing.source.task == "detection":
        # A detector's data may have more classes than the config names.
        listing.classes = expected
        return
    if foreign:
        listing.report("other-classes", "error", "", f"has the class {_named(foreign)}, which is not a training class")
    if not missing and not foreign and listing.classes != expected:
        listing.report("other-classes", "error", "", "the classes have another order than in the training data")


def _check_targets(listing: Listing) -> None:
    source, used = listing.source, listing.used_images
    if unlabelled := len(listing.images) - len(used):
        advice = "" if source.one_label else "; keep_empty=True keeps them"
        text = f"images without a label that are left out: {unlabelled:,}{advice}"
        listing.report("unlabelled-images", "note", "", text)
    if listing.images and not used:
        advice = "" if source.one_label else "; keep_empty=True keeps images without labels"
        listing.report("no-labels", "error", "", f"no image has a label{advice}")
    if source.one_label:
        _require_one_label(listing)
    effect = "training has no example of an image without it" if source.is_training else "its AP is always 100"
    shown = Counter(name for image in used for name in image.shown)
    unverified = Counter(name for image in used for name in image.unverified)
    for name in listing.classes if used else ():
        if not shown[name]:
            listing.report("class-without-positives", "warning", name, "no image shows it")
        elif shown[name] + unverified[name] == len(used):
            text = f"all {len(used):,} images show it, so {effect}"
            listing.report("class-without-negatives", "warning", name, text)


def _require_one_label(listing: Listing) -> None:
    for image in listing.used_images:
        names = [*sorted(image.shown), *(f"{name} (unknown)" for name in sorted(image.unverified))]
        if len(image.shown) != 1 or image.unverified:
            text = f"has the labels {_named(names)}, but training needs exactly one"
            listing.report("several-labels", "error", image.place, text, image.position)


def _check_boxes(listing: Listing) -> None:
    source, names = listing.source, set(listing.classes)
    shown = [image.shown & names for image in listing.images]
    if source.is_training and listing.images:
        large = (min(image.size or (0, 0)) >= source.min_size for image in listing.images)
        usable = (fits and (source.keep_empty or bool(has)) for fits, has in zip(large, shown, strict=True))
        if not any(usable) or not any(shown):
            listing.report("no-labels", "error", "", "no image is large enough and has a box to train on")
    if source.is_training and not source.keep_empty and (without := sum(not has for has in shown)):
        listing.report("unlabelled-images", "note", "", f"images without a usable box that are left out: {without:,}")
    with_class = Counter(name for has in shown for name in has)
    for name in listing.classes:
        if not with_class[name]:
            listing.report("class-without-positives", "warning", name, "no image has a box of it")
        elif with_class[name] == len(shown):
            # A detector learns negatives from the background of images.
            listing.report("class-without-negatives", "note", name, f"all {len(shown):,} images have a box of it")


def _named(names: list[str]) -> str:
    text = ", ".join(map(repr, names[:3]))
    return f"{text} and {len(names) - 3:,} more" if len(names) > 3 else text
