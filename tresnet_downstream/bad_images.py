"""Images that cannot be used: which files are missing, and what is taken in the place of an unreadable one."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.pictures import BadImageError

T = TypeVar("T")
# What a data set does at an unreadable image: raises; takes the next readable one; for scoring, marks the sample.
ON_BAD_IMAGE = ("error", "skip", "leave_out")


def require_on_bad_image(value: str) -> None:
    """Raises UserError unless it is one of ``ON_BAD_IMAGE``."""
    if value not in ON_BAD_IMAGE:
        raise UserError(f"on_bad_image: {value!r} is neither 'error' nor 'skip' nor 'leave_out'")


def first_readable(
    read: Callable[[int], T], name_of: Callable[[int], str], index: int, count: int, on_bad_image: str
) -> tuple[T | None, dict[str, str], str]:
    """Reads a sample, or the next readable one in its place.

    Args:
        read: reads the sample at a position.
        name_of: the name of the image at a position.
        index: the position that is asked for.
        count: the number of samples.
        on_bad_image: one of ``ON_BAD_IMAGE``.

    Returns:
        what ``read`` gave, None for an image that is left out; why those that were passed over cannot be read, by
        name; why the image is left out, otherwise empty.

    Raises:
        UserError: at an unreadable image with ``error``, or if none can be read.
    """
    passed_over: dict[str, str] = {}
    for place in (place % count for place in range(index, index + count)):
        try:
            return read(place), passed_over, ""
        except BadImageError as error:
            if on_bad_image == "leave_out":
                return None, passed_over, str(error)
            if on_bad_image == "error":
                raise UserError(f"{error}; on_bad_image=skip does without such files") from error
            passed_over[name_of(place)] = str(error)
    first = next(iter(passed_over.values()))
    raise UserError(f"none of the {count} images can be read; the first: {first}")


def require_images(key: str, folder: str, missing: Sequence[str], count: int, on_bad_image: str) -> None:
    """Checks that no image is missing, or with another ``on_bad_image`` than ``error`` that not all are.

    Args:
        key: of the config, which names the folder.
        folder: the folder of images.
        missing: the names of those that are not there, from `missing_images`.
        count: how many there should be.
        on_bad_image: one of ``ON_BAD_IMAGE``.

    Raises:
        UserError: with the number of missing images and the name of the first.
    """
    if missing and len(missing) == count:
        raise UserError(
            f"{key}: none of the {count} images is in {folder}, the first is {missing[0]!r}: name the folder that they "
            "lie in"
        )
    if missing and on_bad_image == "error":
        raise UserError(
            f"{key}: {len(missing)} of {count} images are not in {folder}, the first is {missing[0]!r}; "
            "on_bad_image=skip does without them"
        )


def require_some(unreadable: Mapping[str, str], count: int) -> None:
    """Checks that images are left to score.

    Args:
        unreadable: why images cannot be read, by name.
        count: of all images, those included.

    Raises:
        UserError: if none is left.
    """
    if unreadable and len(unreadable) == count:
        first = next(iter(unreadable.values()))
        raise UserError(f"none of the {count} images to score can be read; the first: {first}")


def tell_unscored(unreadable: Mapping[str, str], count: int) -> None:
    """Says in one line how many of ``count`` images are not scored, and why the first is not."""
    first = next(iter(unreadable.values()))
    tell(f"warning: {len(unreadable)} of {count} images cannot be read and are not scored: {first}")
