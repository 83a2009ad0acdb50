"""Annotations that were read once, as one binary file that later starts map into memory.

Parsing MS-COCO's annotations takes seconds and a gigabyte in every process; mapping the arrays takes neither, and
processes share the pages. The file holds a magic number, the header's length and checksum, a header in JSON and the
arrays. It is used only if all of it is as it was written, for an annotation file of the same content (by its SHA-256,
which takes 0.16 s for 300 MB on one core) and the same options. Otherwise it is as if it were not there.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tresnet_downstream.classification.annotations import MultilabelAnnotations, read_annotations
from tresnet_downstream.files import whole_file
from tresnet_downstream.formats import format_of
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.text_files import File

MAGIC = b"tresnet_downstream annotations 3\n"  # the number goes up when the format or the reading changes
ARRAYS = {
    "name_bytes": "<u1",
    "name_offsets": "<i8",
    "indptr": "<i8",
    "indices": "<i4",
    "values": "<i1",
    "unlabelled_bytes": "<u1",
    "unlabelled_offsets": "<i8",
}
PREFIX = struct.Struct("<qI")  # length and checksum of the header
ALIGNMENT = 64
MIN_BYTES = 2**20  # smaller annotation files are read as fast as a cache


def cached_annotations(
    file: File,
    classes: Sequence[str] | None = None,
    keep_empty: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    difficult: str = "unknown",
) -> MultilabelAnnotations:
    """As `read_annotations`, from the cache if that is there and current; otherwise the cache is written.

    A cache that cannot be read or written is done without, and files under `MIN_BYTES` need none.

    Args:
        file: the COCO or CSV file.
        classes: the class names that the targets' columns must have, in this order.
        keep_empty: whether images without annotation stay.
        cache_dir: folder of the cache, made if need be; None for no cache.
        difficult: as `read_annotations` has it; lists of VOC are not cached, since other files have their objects.

    Raises:
        UserError: as `read_annotations` does.
    """
    if cache_dir is None or _size(file) < MIN_BYTES or not format_of(file).stands_alone:
        return read_annotations(file, classes, keep_empty, difficult)
    state = {
        "file": os.path.abspath(file),
        "sha256": _sha256(file),
        "classes": None if classes is None else list(classes),
        "keep_empty": keep_empty,
    }
    # Named for what is asked, not for when: a newer annotation file takes the place of the older one's cache.
    request = json.dumps([state[key] for key in ("file", "classes", "keep_empty")])
    cache = Path(cache_dir) / f"{Path(file).stem}_{hashlib.sha256(request.encode()).hexdigest()[:16]}.annotations"
    annotations = _load(cache, state)
    if annotations is None:
        annotations = read_annotations(file, classes, keep_empty)
        if _sha256(file) == state["sha256"]:  # else it changed meanwhile, and either content may have been read
            _save(cache, state, annotations)
    return annotations


def _size(file: File) -> int:
    """Bytes of the file; -1 if it is not there, which reading it will say."""
    try:
        return os.stat(file).st_size
    except OSError:
        return -1


def _sha256(file: File) -> str:
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as content:
            while block := content.read(2**20):
                digest.update(block)
    except OSError:
        return ""  # which reading it will say
    return digest.hexdigest()


def _save(cache: Path, state: Mapping[str, Any], annotations: MultilabelAnnotations) -> None:
    arrays = {name: np.ascontiguousarray(getattr(annotations, name), dtype) for name, dtype in ARRAYS.items()}
    body = b"".join(_padded(array.tobytes()) for array in arrays.values())
    header = json.dumps(
        {
            "state": state,
            "classes": annotations.classes,
            "lengths": {name: len(array) for name, array in arrays.items()},
            "checksum": zlib.crc32(body),
        }
    ).encode()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(cache) as partial:
            prefix = PREFIX.pack(len(header), zlib.crc32(header))
            partial.write_bytes(_padded(MAGIC + prefix + header) + body)
    except OSError:
        return  # a full or read-only disk: the next start parses again


def _load(cache: Path, state: Mapping[str, Any]) -> MultilabelAnnotations | None:
    """The annotations, as views of the mapped file; None if it is not there, not whole or not for this state."""
    try:
        content = np.memmap(cache, np.uint8, mode="r")
        start = len(MAGIC) + PREFIX.size
        if content[: len(MAGIC)].tobytes() != MAGIC:
            return None
        length, checksum = PREFIX.unpack(content[len(MAGIC) : start].tobytes())
        text = content[start : start + length].tobytes()
        if zlib.crc32(text) != checksum:
            return None
        header = parse_json(text, cache)
        body = content[_aligned(start + length) :]
        if header["state"] != state or header["checksum"] != zlib.crc32(body.data):
            return None
        arrays, place = {}, 0
        for name, dtype in ARRAYS.items():
            size = header["lengths"][name] * np.dtype(dtype).itemsize
            arrays[name] = body[place : place + size].view(np.ndarray).view(dtype)
            place += _aligned(size)
        return MultilabelAnnotations(classes=tuple(header["classes"]), **arrays)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _padded(content: bytes) -> bytes:
    return content.ljust(_aligned(len(content)), b"\0")


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
