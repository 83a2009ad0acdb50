"""Checks that a PNG file is complete. Pillow accepts a truncated pixel stream and leaves the rest black."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
BEST_DEFLATE = 1032  # largest compression ratio of deflate
# Passes of interlaced files: first column, first row, column step, row step.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BLOCK = 2**20


def require_whole_chunks(content: bytes) -> None:
    """Checks the end, the checksums of the pixels and the size of their data, without unpacking.

    Raises:
        ValueError: if the file is truncated or damaged.
    """
    packed = ended = 0
    for name, data, checksum in _chunks(content):
        if name == b"IDAT":
            if zlib.crc32(data, zlib.crc32(name)) != checksum:
                raise ValueError("a checksum of its pixels is wrong")
            packed += len(data)
        ended = name == b"IEND"
    if not ended:
        raise ValueError("the file is truncated")
    if packed * BEST_DEFLATE < _unpacked_size(content)[0]:
        raise ValueError("the file is truncated: it has too few bytes for its size")


def is_interlaced(content: bytes) -> bool:
    """Whether the rows are stored in several passes."""
    return _unpacked_size(content)[1]


def require_whole_stream(content: bytes) -> None:
    """Unpacks the pixels and counts them.

    Raises:
        ValueError: if pixels are missing.
    """
    missing, _ = _unpacked_size(content)
    stream = zlib.decompressobj()
    for name, data, _ in _chunks(content):
        rest: bytes = bytes(data) if name == b"IDAT" else b""
        while rest and missing > 0 and not stream.eof:
            missing -= len(stream.decompress(rest, _BLOCK))
            rest = stream.unconsumed_tail
    if missing > 0:
        raise ValueError("the file is truncated: its stream of pixels ends early")


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Name, data and checksum of each complete chunk."""
    view, place = memoryview(content), len(SIGNATURE)
    while place + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            return
        yield name, view[place + 8 : end - 4], struct.unpack_from(">I", content, end - 4)[0]
        if name == b"IEND":
            return
        place = end


def _unpacked_size(content: bytes) -> tuple[int, bool]:
    """Size of the unpacked pixels in bytes, including a filter byte for each row, and whether they are interlaced."""
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise ValueError("the file is truncated or has no header")
    width, height, bits, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    per_pixel = bits * CHANNELS.get(colours, 1)
    size = 0
    for column, row, columns, rows in PASSES if interlaced else ((0, 0, 1, 1),):
        wide, high = -(-(width - column) // columns), -(-(height - row) // rows)
        if wide > 0 and high > 0:
            size += high * (1 + -(-wide * per_pixel // 8))
    return size, bool(interlaced)
