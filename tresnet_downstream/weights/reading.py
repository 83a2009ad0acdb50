"""Reads weight files safely, and finds the weights in the checkpoints of several projects.

Only tensors, plain values and numpy's arrays are unpickled. MMEngine 0.10.7 stores its log history, with a reference to
``getattr``, in every checkpoint; it is accepted and discarded.
"""

import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import is_regular, open_regular
from tresnet_downstream.weights.integrity import read_safetensors, require_digest, require_usable, require_whole_records
from tresnet_downstream.weights.shared import WEIGHTS, as_checkpoint, require_safetensors

# The keys of the weights in checkpoints. MMEngine's own averaged weights are in `state_dict` itself.
RAW = ("state_dict", "model")
AVERAGED = ("averaged_state_dict", "state_dict_ema", "model_ema")

# The end of messages about damaged files. Resuming omits it, because it renames the file.
COPY_AGAIN = "; fetch or copy it again"
# The values of the argument in torch.load that MMEngine passes.
MapLocation = str | torch.device | None
# An object that a checkpoint may refer to, or a replacement of it and the name in files.
_Allowed = Callable[..., object] | tuple[Callable[..., object], str]
_REFUSED_OBJECT = re.compile(r"(?:GLOBAL|class|function) ([\w.]+)")


class _Discarded:
    """Replaces MMEngine's log history when a checkpoint is read, and discards its state."""

    def __setstate__(self, state: object) -> None:
        pass


def _no_attribute(*_: object) -> None:
    """Replaces ``getattr`` in the log history, since ``getattr`` could access any object of any module."""


def _allowed() -> list[_Allowed]:
    """The objects, besides tensors and plain values, that a checkpoint may refer to, with their names in files."""
    makers = {"_reconstruct": np.zeros(1).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    allowed: list[_Allowed] = [
        (_no_attribute, "builtins.getattr"),
        (_Discarded, "mmengine.logging.history_buffer.HistoryBuffer"),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in "?bhilqBHILQefdUS"},
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(maker, f"{module}.{name}") for name, maker in makers.items()]
    return allowed


def read_checkpoint(path: str | Path, map_location: MapLocation = "cpu", finite: bool = True) -> dict[str, Any]:
    """Reads a file of ``torch.save``, in the zip format or the older one, or a safetensors file.

    The format is recognised by the content, not by the name. ``model.safetensors`` with the ``config.json`` of a shared
    folder beside it is a checkpoint, see :mod:`.shared`. Files are read without running code from them.

    Args:
        path: the file.
        map_location: the device for the tensors of a ``torch.save`` file, as in ``torch.load``.
        finite: whether weights that are NaN or infinite are refused.

    Returns:
        The dict in the file. For a safetensors file without a description, the tensors by name.

    Raises:
        UserError: if the file is missing, empty, truncated, damaged or not a weight file, or if it has objects that are
            not loaded or tensors that `require_usable` refuses.

    Examples:
        >>> torch.save({"state_dict": {"weight": torch.ones(2)}}, "checkpoint.pth")
        >>> read_checkpoint("checkpoint.pth")
        {'state_dict': {'weight': tensor([1., 1.])}}
    """
    path = Path(path)
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder; name a file; for a shared folder, {path / WEIGHTS}")
    if not is_regular(path):
        raise UserError(f"{path}: no such checkpoint")
    try:
        with open_regular(path) as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    require_safetensors(path, start)
    reader = _reader_for(path, start)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning about an old format, which is followed by an error
            checkpoint = reader(path, map_location)
    except pickle.UnpicklingError as error:
        name = _REFUSED_OBJECT.search(str(error))
        what = f"the object {name[1]}" if name else "objects other than tensors and plain values"
        raise UserError(f"{path}: is not loaded: it has {what}, which may run commands") from error
    except UserError:
        raise
    except MemoryError as error:  # a damaged length raises it too
        raise UserError(f"{path}: does not fit in memory, or is damaged{COPY_AGAIN}") from error
    except (
        RuntimeError,
        AttributeError,
        AssertionError,
        zlib.error,
        zipfile.BadZipFile,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path}: is truncated or damaged ({reason}){COPY_AGAIN}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: contains a {type(checkpoint).__name__}, not the dict of a checkpoint")
    if str(map_location) != "meta":
        require_usable(checkpoint, path, finite)
    return checkpoint


def is_detector(path: str | Path) -> bool:
    """Whether a file is a checkpoint of a detector of this toolkit or MMDetection. The weights are not read.

    Raises:
        UserError: as :func:`read_checkpoint`.

    Examples:
        >>> torch.save({"state_dict": {"bbox_head.weight": torch.ones(2)}}, "detector.pth")
        >>> is_detector("detector.pth")
        True
    """
    checkpoint = read_checkpoint(path, map_location="meta")
    weights = _mapping_at(checkpoint, RAW)
    return has_boxes(map(str, checkpoint if weights is None else weights))


def has_boxes(names: Iterable[str]) -> bool:
    """Whether names of weights are of a detector, in MMDetection's naming, or of a joint model.

    Examples:
        >>> has_boxes(["backbone.conv1.weight", "bbox_head.weight"]), has_boxes(["backbone.conv1.weight"])
        (True, False)
    """
    # In a joint model, the names of the detector begin with "detector.".
    heads = ("bbox_head.", "roi_head.", "rpn_head.")
    return any(name.removeprefix("detector.").startswith(heads) for name in names)


def looks_like_weights(path: str | Path) -> bool:
    """Whether a file begins as weight files do. This distinguishes a download from the HTML of an error page."""
    with Path(path).open("rb") as file:
        return _kind(file.read(512)) in ("torch", "safetensors")


def _kind(start: bytes) -> str:
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    if len(start) > 8 and int.from_bytes(start[:8], "little") < 1 << 30 and start[8:9] == b"{":
        return "safetensors"
    return "tar" if start[257:262] == b"ustar" else "unknown"


def _reader_for(path: Path, start: bytes) -> Callable[[Path, MapLocation], object]:
    kind = _kind(start)
    if not start:
        raise UserError(f"{path}: is empty{COPY_AGAIN}")
    if kind == "tar":
        raise UserError(
            f"{path}: is in the format of torch before 0.2, which cannot be read safely; save it again with a newer "
            "torch"
        )
    if kind == "unknown":
        if path.suffix in (".onnx", ".xml"):
            raise UserError(f"{path}: is an exported model; give the weights that it was exported from")
        shown = start[:24].decode("ascii", "replace").split("\n")[0]
        raise UserError(f"{path}: is not a weight file: it begins with {shown!r}")
    return _read_torch if kind == "torch" else _read_safetensors


def _read_safetensors(path: Path, map_location: MapLocation) -> dict[str, object]:
    tensors = read_safetensors(path)
    require_digest(path, tensors)
    return as_checkpoint(path, tensors)


def _read_torch(path: Path, map_location: MapLocation) -> object:
    # torch does not check the checksums. For the device "meta", it reads no values.
    if str(map_location) != "meta" and zipfile.is_zipfile(path):
        require_whole_records(path)
    with torch.serialization.safe_globals(_allowed()):
        return torch.load(path, map_location=map_location, weights_only=True)


def unwrap(
    checkpoint: Mapping[str, object], which: str | None = None, path: str | Path = "checkpoint"
) -> tuple[str, dict[str, Tensor]]:
    """Finds the weights in a checkpoint of this toolkit, MMEngine, timm or a release.

    Args:
        checkpoint: the result of :func:`read_checkpoint`.
        which: ``raw`` or ``averaged``. None takes the weights with the better validation score if the checkpoint has
            one; otherwise, as timm does, the averaged weights if there are any.
        path: the file, for messages.

    Returns:
        ``raw`` or ``averaged``, and the tensors by name.

    Raises:
        UserError: if the checkpoint does not have these weights.

    Examples:
        >>> unwrap({"state_dict": {"weight": torch.ones(2)}, "epoch": 3})
        ('raw', {'weight': tensor([1., 1.])})
    """
    sets = {name: _mapping_at(checkpoint, keys) for name, keys in (("raw", RAW), ("averaged", AVERAGED))}
    best = stored_at(checkpoint, "score", "weights")
    # A checkpoint to resume from, if it was not scored: training continues with the raw weights.
    preferred = "raw" if "optimizer" in checkpoint and "averaged_steps" in checkpoint else "averaged"
    name = str(which or best or (preferred if sets[preferred] is not None else "raw"))
    weights = sets.get(name)
    if weights is None and name == "raw" and sets["averaged"] is None:
        weights = checkpoint
    if weights is None:
        raise UserError(f"{path}: has no {name} weights")
    # The weights may be nested in further dicts. A dict that contains itself must not cause an endless loop.
    outer: list[Mapping[str, object]] = [checkpoint]
    while not any(isinstance(value, Tensor) for value in weights.values()) and all(
        weights is not each for each in outer
    ):
        outer.append(weights)
        inner = _mapping_at(weights, RAW)
        weights = weights if inner is None else inner
    tensors = {str(key): value for key, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(weights)[:3])) or "nothing"
        raise UserError(f"{path}: has no weights ({keys})")
    return name, tensors


def _mapping_at(checkpoint: Mapping[str, object], keys: Sequence[str]) -> Mapping[str, object] | None:
    """The first value at one of the keys that is a mapping; None if there is none."""
    return next((value for key in keys if isinstance(value := checkpoint.get(key), Mapping)), None)


def stored_at(checkpoint: Mapping[str, object], *keys: str) -> Any:
    """The value at nested keys, such as ``meta`` and ``model``; None if there is none."""
    value: object = checkpoint
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def class_names(checkpoint: Mapping[str, object], path: str | Path) -> tuple[str, ...] | None:
    """The class names in a checkpoint of MMEngine; None if it has none.

    Raises:
        UserError: if the stored value is not a list of names.
    """
    names = stored_at(checkpoint, "meta", "dataset_meta", "classes")
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: has {str(names)[:80]!r} instead of a list of class names")
    return tuple(names)
