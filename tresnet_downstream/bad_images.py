"""Missing and unreadable images: errors, and the sample that replaces an unreadable one."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tresnet_downstream.errors import UserError
from tresnet_downstream.images import BadImageError
from tresnet_downstream.notices import tell

T = TypeVar("T")
# What a data set does if an image is unreadable: raise, use the next readable image, or (in scoring) mark the sample.
ON_BAD_IMAGE = ("error", "skip", "leave_out")


def require_on_bad_image(value: str) -> None:
    """Raises UserError unless the value is one of ``ON_BAD_IMAGE``."""
    if value not in ON_BAD_IMAGE:
        raise UserError(f"on_bad_image={value!r}: choose 'error', 'skip' or 'leave_out'")


def first_readable(
    read: Callable[[int], T], name_of: Callable[[int], str], index: int, count: int, on_bad_image: str
) -> tuple[T | None, dict[str, str], str]:
    """Reads a sample or, if its image is unreadable, the next readable one.

    Args:
        read: reads the sample at a position.
        name_of: returns the name of the image at a position.
        index: position of the sample.
        count: number of samples.
        on_bad_image: one of ``ON_BAD_IMAGE``.

    Returns:
        the sample, or None if the image is left out; the reasons for skipped images, by name; the reason why the image
        is left out, or an empty string.

    Raises:
        UserError: if an image is unreadable and ``on_bad_image`` is ``error``, or if no image can be read.
    """
    passed_over: dict[str, str] = {}
    for place in (place % count for place in range(index, index + count)):
        try:
            return read(place), passed_over, ""
        except BadImageError as error:
            if on_bad_image == "leave_out":
                return None, passed_over, str(error)
            if on_bad_image == "error":
                raise UserError(f"{error}; set on_bad_image=skip to skip such files") from error
            passed_over[name_of(place)] = str(error)
    first = next(iter(passed_over.values()))
    raise UserError(f"none of the {count} images can be read; the first: {first}")


def require_images(key: str, folder: str, missing: Sequence[str], count: int, on_bad_image: str) -> None:
    """Checks that no image is missing or, unless ``on_bad_image`` is ``error``, that not all of them are.

    Args:
        key: the config key that names the folder.
        folder: the folder of images.
        missing: names of the missing images, from `missing_images`.
        count: number of all images.
        on_bad_image: one of ``ON_BAD_IMAGE``.

    Raises:
        UserError: if images are missing; the message has their number and the name of the first.
    """
    if missing and len(missing) == count:
        raise UserError(
            f"{key}: none of the {count} images is in {folder}, the first is {missing[0]!r}: name the folder that "
            "contains them"
        )
    if missing and on_bad_image == "error":
        raise UserError(
            f"{key}: {len(missing)} of {count} images are not in {folder}, the first is {missing[0]!r}; "
            "set on_bad_image=skip to skip them"
        )


def require_some(unreadable: Mapping[str, str], count: int) -> None:
    """Checks that images are left to score.

    Args:
        unreadable: reasons by the names of unreadable images.
        count: number of all images.

    Raises:
        UserError: if no image is left.
    """
    if unreadable and len(unreadable) == count:
        first = next(iter(unreadable.values()))
        raise UserError(f"none of the {count} images to score can be read; the first: {first}")


def tell_unscored(unreadable: Mapping[str, str], count: int) -> None:
    """Prints a warning with the number of images that are not scored, and the reason for the first one."""
    first = next(iter(unreadable.values()))
    tell(f"warning: {len(unreadable)} of {count} images cannot be read and are not scored: {first}")
