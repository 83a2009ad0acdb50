"""Damage in weight files: checksums, packed records, and tensors that no network of this toolkit takes."""

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tresnet_downstream.errors import UserError
from tresnet_downstream.limits import excess, unpacked_limit

DIGEST = "tensors_sha256"
TYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
_SAFETENSORS_TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
# What a training goes on from, which is no part of a network.
_STATES = ("optimizer", "message_hub", "param_schedulers")
_BLOCK = 2**20
_END_OF_ARCHIVE, _END_SIZE = b"PK\x05\x06", 22  # of a zip file: how its last record begins, and its length


def require_whole_records(path: Path) -> None:
    """Compares every record of a zip file with its checksum, and the file's end with the end of the archive.

    Raises:
        UserError: the records unpack to more than the limit ``expansion`` allows.
        ValueError: a record is damaged, or something stands behind the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size, unpacked = path.stat().st_size, sum(record.file_size for record in archive.infolist())
            if unpacked > unpacked_limit(size):
                raise UserError(
                    f"{path}: {excess('expansion', f'unpacks to {unpacked:,} bytes')} (of each packed byte)"
                )
            _require_end(path, size, archive.comment)
            for record in archive.infolist():
                with archive.open(record) as stream:
                    while stream.read(_BLOCK):
                        pass
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
        raise ValueError(str(error)) from error


def _require_end(path: Path, size: int, comment: bytes) -> None:
    """Raises ValueError if a zip file goes on behind its last record."""
    with path.open("rb") as file:
        file.seek(max(0, size - _END_SIZE - len(comment)))
        if not file.read().startswith(_END_OF_ARCHIVE):
            raise ValueError("the file goes on behind the end of the archive")


def require_usable(checkpoint: Mapping[Any, Any], path: str | Path, finite: bool = True) -> None:
    """Checks the tensors of a checkpoint, those of the optimiser excepted, before it is used or written.

    Raises:
        UserError: one is not finite, of a type or layout that no network here has, or its name fits no encoding.
    """
    for name, tensor in _tensors(checkpoint):
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{path}: has the name {name!r}, which no encoding takes") from error
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.dtype not in TYPES:
            kind = "nested" if tensor.is_nested else f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise UserError(f"{path}: {name} is a tensor of another kind ({kind}) than the weights of a network")
        # A stride of 0 repeats a value without end, for nothing in the file.
        size, stored = tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes()
        if size > unpacked_limit(stored):
            raise UserError(
                f"{path}: {name}: {excess('expansion', f'{size:,} bytes of {stored:,} stored')} (of each stored byte)"
            )
        if finite and not is_finite(tensor):
            raise UserError(f"{path}: {name} has values that are NaN or infinite; take another checkpoint")


def first_not_finite(checkpoint: Mapping[Any, Any]) -> str | None:
    """The name of a tensor of a checkpoint, those of the optimiser excepted, with values that are NaN or infinite."""
    return next((name for name, tensor in _tensors(checkpoint) if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    # A sum is quicker. It may overflow where no value is infinite: then each is looked at.
    return bool(tensor.sum(dtype=torch.float64).isfinite()) or bool(tensor.isfinite().all())


def _tensors(value: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """All tensors in dicts and lists within each other, each container once."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [(str(key), item) for key, item in value.items() if key not in _STATES]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, Tensor):
            yield name, item
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            entries: Iterable[tuple[Any, Any]] = item.items() if isinstance(item, Mapping) else enumerate(item)
            waiting += [
                (str(key), entry) for key, entry in entries if isinstance(entry, Tensor | Mapping | list | tuple)
            ]


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode("utf-8", "surrogatepass"))
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file that holds a checksum of its tensors.

    Raises:
        UserError: as :func:`require_usable`.
    """
    require_usable(tensors, path)
    save_file(dict(tensors), path, metadata={"format": "pt", DIGEST: digest_of(tensors)})
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Puts the metadata in order: safetensors writes it in any, so that equal weights were unequal files."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each in memory of its own.

    The library gives views into the file, at any alignment: kernels round otherwise there than for a checkpoint's.
    """
    with safe_open(path, "pt"):  # checks the header: types, shapes and places
        pass
    tensors = {}
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        if any(entry["dtype"] not in _SAFETENSORS_TYPES for entry in header.values()):
            return load_file(path)
        for name, entry in header.items():
            tensor = torch.empty(entry["shape"], dtype=_SAFETENSORS_TYPES[entry["dtype"]])
            file.seek(8 + length + entry["data_offsets"][0])
            if file.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
                raise ValueError(f"{name} is cut off")
            tensors[name] = tensor
    return tensors


def require_digest(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError if a safetensors file holds a checksum of other tensors than its own."""
    with safe_open(path, "pt") as file:
        stored = (file.metadata() or {}).get(DIGEST)
    if stored is not None and stored != digest_of(tensors):
        raise ValueError("its tensors do not fit their checksum")
