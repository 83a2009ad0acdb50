"""Compares images with one another: duplicates within a split, and images that several splits share."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tresnet_downstream.data_check.findings import Severity
from tresnet_downstream.data_check.images import Look
from tresnet_downstream.data_check.listing import ListedImage, Listing
from tresnet_downstream.data_check.near import BITS, near_pairs

_ORDER = {"train": 0, "data": 0, "val": 1, "test": 2}


class Seen(NamedTuple):
    """A readable image of a split."""

    listing: Listing
    image: ListedImage
    look: Look

    @property
    def rank(self) -> int:
        """0 for training data, 1 for validation, 2 for test."""
        return _ORDER[self.listing.source.split]


def check_duplicates(images: Sequence[Seen]) -> None:
    """Reports images with identical pixels, within a split and from one split to another."""
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for seen in images:
        groups[seen.look.pixels].append(seen)
    for group in groups.values():
        if len(group) > 1:
            for rank in (0, 1, 2):
                _check_within([seen for seen in group if seen.rank == rank])
            _check_across(group)


def check_near_duplicates(images: Sequence[Seen], max_distance: int) -> None:
    """Reports similar images, each with the most similar one.

    Of two images of a split the later is reported, of two splits the training image.

    Args:
        images: the readable images of all splits, training images first.
        max_distance: largest number of differing bits of the hashes.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index, seen in enumerate(images):
        if seen.look.hash is not None:
            groups[seen.look.hash].append(index)
    members = list(groups.values())
    ones, others, distances = near_pairs(np.array(list(groups), np.uint64), max_distance)
    pairs = [(0, group, group) for group in members if len(group) > 1]
    pairs += [
        (distance, members[one], members[other])
        for distance, one, other in sorted(zip(distances.tolist(), ones.tolist(), others.tolist(), strict=True))
    ]
    # For each image, the first similar image within its split and in a later split.
    within: dict[int, tuple[int, Seen]] = {}
    across: dict[int, tuple[int, Seen]] = {}
    for distance, one_group, other_group in pairs:
        directions = [(one_group, other_group)]
        if one_group is not other_group:
            directions.append((other_group, one_group))
        for group, candidates in directions:
            # Many images may have the same hash, so one image of each split represents them.
            first = {images[index].rank: index for index in reversed(candidates)}
            for index in group:
                for rank, like in first.items():
                    if images[like].look.pixels == images[index].look.pixels:
                        continue  # reported as identical
                    if rank == images[index].rank and like < index:
                        within.setdefault(index, (distance, images[like]))
                    elif rank > images[index].rank:
                        across.setdefault(index, (distance, images[like]))
    for index, (distance, other) in across.items():
        text = f"looks like {_name(other)} of {other.listing.source.split} ({distance} of {BITS} bits differ)"
        _report(images[index], "near-leak", "warning", text)
    for index, (distance, other) in within.items():
        _report(
            images[index], "near-duplicate", "note", f"looks like {_name(other)} ({distance} of {BITS} bits differ)"
        )


def _check_within(group: list[Seen]) -> None:
    """Reports identical images of a split: as duplicates if their labels are equal, otherwise as a contradiction."""
    if len(group) < 2:
        return
    first = group[0]
    if any(seen.image.labels != first.image.labels for seen in group):
        for seen in group:
            other = next(other for other in group if other.image.labels != seen.image.labels)
            text = f"has {_same(seen, other)} as {_name(other)}, but other labels: {_difference(seen, other)}"
            _report(seen, "contradictory-labels", "warning", text)
        return
    for seen in group[1:]:
        text = f"has {_same(seen, first)} as {_name(first)}"
        _report(seen, "duplicate-image", "warning", text)


def _check_across(group: list[Seen]) -> None:
    """Reports images of the earlier split, because removing them there does not change the scored data."""
    for seen in group:
        later = next((other for other in group if other.rank > seen.rank), None)
        if later is None:
            continue
        text = f"has {_same(seen, later)} as {_name(later)} of {later.listing.source.split}"
        if later.image.labels != seen.image.labels:
            text += f", and other labels: {_difference(seen, later)}"
        if seen.rank == 0:
            # An image that training leaves out does not affect scores.
            _report(seen, "leaked-image", "error" if seen.listing.uses(seen.image) else "warning", text)
        else:
            _report(seen, "shared-image", "warning", text)


def _report(seen: Seen, kind: str, severity: Severity, text: str) -> None:
    seen.listing.report(kind, severity, seen.image.place, text, seen.image.position)


def _same(seen: Seen, other: Seen) -> str:
    return "the same content" if seen.look.content == other.look.content else "the same pixels"


def _name(seen: Seen) -> str:
    return seen.image.name


def _difference(seen: Seen, other: Seen) -> str:
    """Describes how the labels of two images differ."""
    texts = [
        f"{', '.join(sorted(names)[:3])} only {where}"
        for names, where in (
            (seen.image.shown - other.image.shown, "here"),
            (other.image.shown - seen.image.shown, "there"),
        )
        if names
    ]
    return "; ".join(texts) or "the boxes or unverified labels differ"
