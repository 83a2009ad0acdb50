"""Detects damage in weight files: wrong checksums, damaged records, and tensors that no network here can have."""

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

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
# The state of a training, which is not a part of the network.
_STATES = ("optimizer", "message_hub", "param_schedulers")
_BLOCK = 2**20
_END_OF_ARCHIVE, _END_SIZE = b"PK\x05\x06", 22  # the first bytes and the length of the last record of a zip file


def require_whole_records(path: Path) -> None:
    """Checks the checksum of every record of a zip file, and that the archive ends at the end of the file.

    Raises:
        UserError: if the unpacked size is above the limit ``expansion``.
        ValueError: if a record is damaged, or data follows the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size, unpacked = path.stat().st_size, sum(record.file_size for record in archive.infolist())
            if unpacked > unpacked_limit(size):
                raise UserError(
                    f"{path}: {excess('expansion', f'unpacks to {unpacked / size:,.0f} bytes for each packed byte')}"
                )
            _require_end(path, size, archive.comment)
            for record in archive.infolist():
                with archive.open(record) as stream:
                    while stream.read(_BLOCK):
                        pass
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
        raise ValueError(str(error)) from error


def _require_end(path: Path, size: int, comment: bytes) -> None:
    """Raises ValueError if data follows the last record of a zip file."""
    with path.open("rb") as file:
        file.seek(max(0, size - _END_SIZE - len(comment)))
        if not file.read().startswith(_END_OF_ARCHIVE):
            raise ValueError("data follows the end of the archive")


def require_usable(checkpoint: Mapping[str, object], path: str | Path, finite: bool = True) -> None:
    """Checks the tensors of a checkpoint, except those of the optimiser, before it is used or written.

    Args:
        checkpoint: the checkpoint, or tensors by name.
        path: the file, for messages.
        finite: whether values that are NaN or infinite are refused.

    Raises:
        UserError: if a tensor has values that are not finite, has a type or layout that no network here has, or has a
            name that cannot be encoded.
    """
    for name, tensor in _tensors(checkpoint):
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{path}: has the name {name!r}, which cannot be encoded") from error
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.dtype not in TYPES:
            kind = "nested" if tensor.is_nested else f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise UserError(f"{path}: {name} is a tensor of a kind that networks do not have ({kind})")
        # With a stride of 0, one stored value can fill a tensor of any size.
        size, stored = tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes()
        if size > unpacked_limit(stored):
            raise UserError(
                f"{path}: {name}: {excess('expansion', f'has {size / max(stored, 1):,.0f} bytes for each stored byte')}"
            )
        if finite and not is_finite(tensor):
            raise UserError(f"{path}: {name} has values that are NaN or infinite; use another checkpoint")


def first_not_finite(checkpoint: Mapping[str, object]) -> str | None:
    """The name of a tensor, not of the optimiser, with values that are NaN or infinite; None if all are finite."""
    return next((name for name, tensor in _tensors(checkpoint) if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite."""
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    # The sum is faster. It may overflow although all values are finite, so that each value is checked then.
    return bool(tensor.sum(dtype=torch.float64).isfinite()) or bool(tensor.isfinite().all())


def _tensors(value: Mapping[str, object]) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts and lists. Each container is visited once, so that cycles end."""
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [(str(key), item) for key, item in value.items() if key not in _STATES]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, Tensor):
            yield name, item
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            entries: Iterable[tuple[object, object]] = item.items() if isinstance(item, Mapping) else enumerate(item)
            waiting += [
                (str(key), entry) for key, entry in entries if isinstance(entry, Tensor | Mapping | list | tuple)
            ]


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of the names, types, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode("utf-8", "surrogatepass"))
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file with a checksum of its tensors in the metadata.

    Raises:
        UserError: as :func:`require_usable`.
    """
    require_usable(tensors, path)
    # safetensors writes files that only their owner can read; this one gets the permissions of any new file.
    path.touch()
    permissions = path.stat().st_mode
    save_file(dict(tensors), path, metadata={"format": "pt", DIGEST: digest_of(tensors)})
    path.chmod(permissions)
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sorts the metadata. safetensors writes it in random order, so that equal weights would give different files."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file, each into memory of its own.

    The safetensors library returns views of the file with any alignment. For them, kernels may round differently than
    for the aligned tensors of a checkpoint.

    Raises:
        ValueError: if the file is truncated.
    """
    with safe_open(path, "pt"):  # checks the types, shapes and offsets in the header
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
                raise ValueError(f"{name} is truncated")
            tensors[name] = tensor
    return tensors


def require_digest(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError if the checksum in a safetensors file is not that of its tensors."""
    with safe_open(path, "pt") as file:
        stored = (file.metadata() or {}).get(DIGEST)
    if stored is not None and stored != digest_of(tensors):
        raise ValueError("its tensors do not match their checksum")
