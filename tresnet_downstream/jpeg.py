"""Fast decoding of ordinary JPEG files by OpenCV's libjpeg, optionally at a reduced scale.

Unusual or incomplete files are left to Pillow, which supports more formats and reports damage.
"""

import io
import re
import struct
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image

from tresnet_downstream.limits import excess, limit

START, END = b"\xff\xd8", b"\xff\xd9"
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, with Huffman codes
PROGRESSIVE = 0xC2
OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
SCAN, APPLICATION_1 = 0xDA, 0xE1
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)  # within a scan: no stuffed byte and no restart
# Replaces the end marker. libjpeg reads up to 8 bytes ahead. If data is missing before an end marker, libjpeg makes
# pixels up; without an end marker it stops at the missing data.
PADDING = bytes(8)
MAX_PIXELS = 2**26  # Pillow checks larger images
SCALES = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    1: 0,
}
# Operations that make an image upright, by its EXIF orientation; 1 is upright.
TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image[::-1].transpose(1, 0, 2),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image[:, ::-1].transpose(1, 0, 2),
}


class Header(NamedTuple):
    """The header of a JPEG file.

    Attributes:
        height: height of the stored image, before rotation.
        width: width of the stored image.
        orientation: EXIF orientation, 1 for upright.
        progressive: whether the file is progressive, with several scans.
        first_scan: position of the first scan's data, in bytes.
    """

    height: int
    width: int
    orientation: int
    progressive: bool
    first_scan: int


def decode_jpeg(content: bytes, at_least: tuple[int, int] | None = None) -> np.ndarray | None:
    """Decodes an ordinary JPEG file and rotates it according to its EXIF orientation.

    Args:
        content: the whole file.
        at_least: required height and width of the upright image. The file is decoded at the smallest of the scales 1,
            1/2, 1/4, 1/8 whose result is not smaller; None for full size.

    Returns:
        uint8 of shape (height, width, 3) in RGB; at full size the same pixels as Pillow's with the same libjpeg.
        None for files that Pillow must decode: not JPEG, colours other than grey, YCbCr and RGB, not 8 bits, too many
        pixels, or no end marker (truncated).

    Raises:
        ValueError: if :func:`require_scans` refuses a progressive file.
    """
    header = read_header(content) if content.endswith(END) else None
    if header is None:
        return None
    if header.progressive:
        require_scans(content)
    elif _is_one_scan(content, header.first_scan):
        content = content[: -len(END)] + PADDING
    else:
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | SCALES[_reduction(header, at_least)]
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    if image is None:
        return None
    turn = TURNS.get(header.orientation)
    return image if turn is None else np.ascontiguousarray(turn(image))


def read_header(content: bytes) -> Header | None:
    """Reads the markers up to the first scan; None if it is not an ordinary JPEG file."""
    if not content.startswith(START):
        return None
    place, sides, orientation, progressive = 2, None, 1, False
    while place + 4 <= len(content):
        lead, marker, length = struct.unpack_from(">BBH", content, place)
        if lead != 0xFF or marker in OTHER_FRAMES or length < 2:
            return None
        if marker == SCAN:
            return None if sides is None else Header(*sides, orientation, progressive, place + 2 + length)
        if marker in FRAMES:
            if sides is not None or place + 10 > len(content):
                return None
            bits, height, width, colours = struct.unpack_from(">BHHB", content, place + 4)
            if bits != 8 or colours not in (1, 3) or not 0 < height * width <= MAX_PIXELS:
                return None
            sides, progressive = (height, width), marker == PROGRESSIVE
        elif marker == APPLICATION_1:
            # Metadata may contain the orientation in several formats, which Pillow supports.
            with Image.open(io.BytesIO(content)) as image:
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        place += 2 + length
    return None


def _is_one_scan(content: bytes, start: int) -> bool:
    """Whether only restart markers occur between ``start`` and the end; OpenCV would ignore anything after a marker."""
    values = np.frombuffer(content, np.uint8)[start:]
    # 0xff bytes without a stuffed zero: a single one is the end marker, whose presence `decode_jpeg` has checked.
    if np.count_nonzero((values[:-1] == 0xFF) & (values[1:] != 0)) == 1:
        return True
    marker = MARKER.search(content, start)
    return marker is not None and marker.start() == len(content) - len(END)


def _reduction(header: Header, at_least: tuple[int, int] | None) -> int:
    """The largest factor, 8, 4, 2 or 1, by which the sides may be divided."""
    if at_least is None:
        return 1
    turned = header.orientation in (5, 6, 7, 8)
    height, width = reversed(at_least) if turned else at_least
    # libjpeg rounds the sides up.
    return next(d for d in SCALES if d == 1 or (-(-header.height // d) >= height and -(-header.width // d) >= width))


class Scans(NamedTuple):
    """The scans of a JPEG file.

    Attributes:
        frame: the frame marker, which says whether the file is baseline, progressive, ...
        number: number of scans, at most one more than the limit.
        end: position of the end marker in bytes; None if there is none.
        lacking: number of coefficients without full precision after all scans; 0 unless progressive.
    """

    frame: int
    number: int
    end: int | None
    lacking: int


def read_scans(content: bytes) -> Scans | None:
    """Reads all markers up to the end; None if their order is invalid."""
    place, frame, count, most = len(START), 0, 0, limit("scans")
    precise: dict[int, set[int]] = {}  # by component, the coefficients with full precision
    while place + 2 <= len(content):
        marker = content[place + 1]
        if content[place] != 0xFF:
            return None
        if marker == 0xFF:
            place += 1
            continue
        if marker == END[1] or count > most:
            lacking = sum(64 - len(whole) for whole in precise.values()) if frame == PROGRESSIVE else 0
            return Scans(frame, count, place if marker == END[1] else None, lacking)
        if place + 4 > len(content):
            break
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place + 4 : place + 2 + length]
        if marker in FRAMES or marker in OTHER_FRAMES:
            frame = marker
            precise = {number: set() for number in segment[6::3]}
        place += 2 + length
        if marker == SCAN:
            count += 1
            _add_scan(precise, segment)
            following = MARKER.search(content, place)
            if following is None:
                break
            place = following.start()
    return Scans(frame, count, None, 0) if frame else None


def _add_scan(precise: dict[int, set[int]], segment: bytes) -> None:
    """Adds the coefficients that have full precision after a scan, according to its header."""
    if segment and len(segment) >= 4 + 2 * segment[0]:
        first, last, bits = segment[1 + 2 * segment[0] :][:3]
        if bits & 15 == 0:
            for component in segment[1 : 1 + 2 * segment[0] : 2]:
                precise.setdefault(component, set()).update(range(first, min(last, 63) + 1))


def require_scans(content: bytes) -> Scans | None:
    """Reads the scans of a JPEG file and checks them.

    Raises:
        ValueError: if there are too many scans, or the last scans of a progressive file are missing.
    """
    scans = read_scans(content)
    if scans is None:
        return None
    if scans.number > limit("scans"):
        raise ValueError(excess("scans", f"it has more than {limit('scans')} scans"))
    if scans.end is not None and scans.lacking:
        raise ValueError("the file is truncated: its last scans are missing")
    return scans


def without_end(content: bytes) -> bytes:
    """Removes the end marker of a JPEG file with one scan, so a decoder stops where data is missing.

    Raises:
        ValueError: see :func:`require_scans`.
    """
    scans = require_scans(content)
    if scans is None or scans.end is None or scans.number != 1 or scans.frame not in FRAMES[:2]:
        return content
    return content[: scans.end] + PADDING
