"""A cache of parsed annotations: one binary file, which later runs map into memory.

Parsing MS-COCO's annotations takes seconds and a gigabyte in every process. Mapping the arrays takes neither, and
processes share the pages. The file has a magic number, the length and checksum of the header, a header in JSON, and the
arrays. It is used only if its checksums are right, the options are the same, and the annotation file has the same
SHA-256 (which takes 0.16 s for 300 MB on one core). Otherwise the annotations are parsed.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tresnet_downstream.classification.annotations import MultilabelAnnotations, read_annotations
from tresnet_downstream.files import whole_file
from tresnet_downstream.formats import format_of
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.text_files import File

MAGIC = b"tresnet_downstream annotations 3\n"  # increase the number when the format or the parsing changes
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
MIN_BYTES = 2**20  # smaller annotation files are parsed as fast as a cache is read


def cached_annotations(
    file: File,
    classes: Sequence[str] | None = None,
    keep_empty: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    difficult: str = "unknown",
) -> MultilabelAnnotations:
    """Reads annotations as `read_annotations`, from a valid cache if there is one. Otherwise it writes the cache.

    Annotation files below `MIN_BYTES` are not cached. If the cache cannot be read or written, it is not used.

    Args:
        file: the COCO or CSV file.
        classes: class names of the columns of the targets, in this order; None for those of the file.
        keep_empty: whether images without annotation are kept.
        cache_dir: folder of the cache, created if necessary; None for no cache.
        difficult: see `read_annotations`. Lists of PASCAL VOC are not cached, since their objects are in other files.

    Raises:
        UserError: as `read_annotations`.
    """
    if cache_dir is None or _size(file) < MIN_BYTES or not format_of(file).stands_alone:
        return read_annotations(file, classes, keep_empty, difficult)
    state = {
        "file": os.path.abspath(file),
        "sha256": _sha256(file),
        "classes": None if classes is None else list(classes),
        "keep_empty": keep_empty,
    }
    # The name does not depend on the content, so that a changed annotation file replaces its old cache.
    request = json.dumps([state[key] for key in ("file", "classes", "keep_empty")])
    cache = Path(cache_dir) / f"{Path(file).stem}_{hashlib.sha256(request.encode()).hexdigest()[:16]}.annotations"
    annotations = _load(cache, state)
    if annotations is None:
        annotations = read_annotations(file, classes, keep_empty)
        if _sha256(file) == state["sha256"]:  # otherwise the file changed while it was read
            _save(cache, state, annotations)
    return annotations


def _size(file: File) -> int:
    """Bytes of the file; -1 if it is missing. Reading it raises the error."""
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
        return ""  # reading it raises the error
    return digest.hexdigest()


def _save(cache: Path, state: Mapping[str, object], annotations: MultilabelAnnotations) -> None:
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
        return  # a full or read-only disk: the next run parses the annotations again


def _load(cache: Path, state: Mapping[str, object]) -> MultilabelAnnotations | None:
    """The annotations as views of the mapped file; None if the cache is missing, damaged or for another state."""
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
        arrays, offset = {}, 0
        for name, dtype in ARRAYS.items():
            size = header["lengths"][name] * np.dtype(dtype).itemsize
            arrays[name] = body[offset : offset + size].view(np.ndarray).view(dtype)
            offset += _aligned(size)
        return MultilabelAnnotations(classes=tuple(header["classes"]), **arrays)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _padded(content: bytes) -> bytes:
    return content.ljust(_aligned(len(content)), b"\0")


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
