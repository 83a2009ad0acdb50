"""Writes weight files in the formats of other projects."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tresnet_downstream.classification.weight_file import WeightFile
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_result
from tresnet_downstream.weights.formats import OURS, RELEASE, TIMM, to_release, to_timm
from tresnet_downstream.weights.head_names import HEADS
from tresnet_downstream.weights.integrity import require_usable, save_safetensors


def convert(file: WeightFile, out: str | Path, to: str) -> Path:
    """Writes the weights of a file in another format.

    - ``timm``: a state dict with timm's names and ordinary batch norms, as ``.pth`` or ``.safetensors``.
    - ``release``: the dict of the TResNet, ASL and ML-Decoder releases, as ``.pth``. No value changes.
    - ``tresnet``: a checkpoint of this toolkit, as ``.pth``.

    Args:
        file: the result of :func:`read_weight_file`.
        out: path of the new file, which appears when it is complete. An existing file is moved aside, see
            :class:`Earlier`.
        to: the format.

    Returns:
        The path of the new file.

    Raises:
        UserError: if the format does not support the network or the suffix, if weights are NaN or infinite, or if the
            folder cannot be written.
    """
    if to not in (TIMM, RELEASE, OURS):
        raise UserError(f"`to` {to}: give {TIMM}, {RELEASE} or {OURS}")
    out = Path(out)
    if file.backbone["type"] != "TResNet" and to != OURS:
        raise UserError(
            f"{file.path}: its backbone is {file.variant}, which the format {to!r} does not support; convert it to "
            f"{OURS!r}"
        )
    if to != OURS and file.head is not None and file.head["type"] not in HEADS:
        raise UserError(
            f"{file.path}: its head is a {file.head['type']}, which the format {to!r} does not support; convert it to "
            f"{OURS!r}"
        )
    if out.suffix not in ((".pth", ".safetensors") if to == TIMM else (".pth",)):
        suffixes = ".pth or .safetensors" if to == TIMM else ".pth"
        raise UserError(f"{out}: the suffix of files in the format {to!r} is {suffixes}")
    if to == TIMM and file.head is not None and not HEADS[file.head["type"]].in_timm:
        raise UserError(f"{file.path}: timm has no {file.head['type']}; convert it to 'release'")
    require_usable(file.state_dict, file.path)
    with whole_result(out) as partial:
        if out.suffix == ".safetensors":
            save_safetensors(_plain(to_timm(file.state_dict)), partial)
        else:
            # As a stream, because torch writes the name of a path into the file.
            with partial.open("wb") as stream:
                torch.save(_content(file, to), stream)
    return out


def _content(file: WeightFile, to: str) -> Mapping[str, object]:
    if to == TIMM:
        return _plain(to_timm(file.state_dict))
    if to == RELEASE:
        content: dict[str, object] = {"model": _plain(to_release(file.state_dict))}
        if file.head is not None:
            content["num_classes"] = file.head["num_classes"]
        if file.named:
            content["idx_to_class"] = dict(enumerate(file.classes))
        return content
    model = {"classifier": file.classifier, "pipeline": [dict(step) for step in file.pipeline]}
    data = {"classes": list(file.classes)} if file.named else {}
    return {"state_dict": _plain(file.state_dict), "meta": {"model": model, "dataset_meta": data}}


def _plain(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, each with a storage of its own. torch.save would write the whole storage of a view."""
    return {
        name: tensor.contiguous() if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.contiguous().clone()
        for name, tensor in state_dict.items()
    }
