"""Writes a shared folder: weights, description, model card, and what else belongs to a model."""

import json
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tresnet_downstream.classification.model_loading import assembled, load_model
from tresnet_downstream.deployment.sharing.card import model_card, scores_of
from tresnet_downstream.deployment.sharing.exported_file import copy_exported
from tresnet_downstream.deployment.sharing.model import SharedModel, shared_model
from tresnet_downstream.deployment.sharing.timm_form import TOLERANCE, TimmForm, difference_from_timm
from tresnet_downstream.deployment.sharing.upload import require_repository, upload
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.thresholds import Thresholds, read_thresholds, write_thresholds
from tresnet_downstream.files import whole_folder
from tresnet_downstream.notices import tell
from tresnet_downstream.running.folders import move_aside
from tresnet_downstream.weights.download import sha256_of
from tresnet_downstream.weights.formats import OURS
from tresnet_downstream.weights.integrity import save_safetensors
from tresnet_downstream.weights.public_files import locate
from tresnet_downstream.weights.shared import CLASSIFIER, CONFIG, KEY, VERSION, WEIGHTS, description_beside, to_json

CARD, THRESHOLDS = "README.md", "thresholds.json"


@dataclass(frozen=True)
class Shared:
    """What was written.

    Attributes:
        folder: where it is.
        files: names of its files.
        not_in_timm: why timm cannot read it; empty if it can.
        url: of the repository, if it was uploaded.
    """

    folder: Path
    files: tuple[str, ...]
    not_in_timm: str = ""
    url: str = ""


def share(
    checkpoint: str | Path,
    out: str | Path,
    licence: str,
    *,
    weights: str | None = None,
    scored: str | Path | None = None,
    thresholds: str | Path | None = None,
    exported: str | Path | None = None,
    name: str | None = None,
    push_to: str | None = None,
    private: bool = False,
) -> Shared:
    """Writes a folder for the Hugging Face hub with a trained model, and uploads it if asked to.

    ``load_model`` (or, of a detector, ``load_detector``) reads the folder and, once uploaded, ``hf://OWNER/NAME``. timm
    reads it as ``local-dir:FOLDER`` and ``hf-hub:OWNER/NAME`` where it has the network; the card says so if not. The
    folder holds

    - ``model.safetensors``: the weights;
    - ``config.json``: timm's description, and under ``tresnet_downstream`` all that ``load_model`` gives;
    - ``README.md``: the model card, with a section that the author is to write;
    - ``thresholds.json`` and ``model.onnx``, if they are given.

    Nothing else of the checkpoint or of this machine is in it.

    Args:
        checkpoint: a path, URL or name of the catalogue.
        out: the folder to write. It appears when it is whole; a shared folder with other content that is there is
            renamed to ``OUT_1``.
        licence: of the weights, as the hub names it, such as ``apache-2.0``.
        weights: ``raw`` or ``averaged``; None takes those that scored better.
        scored: a run folder of this checkpoint, for scores with 95% intervals; None takes the checkpoint's folder if it
            is one.
        thresholds: a file of thresholds for the model's classes.
        exported: the model's ONNX file.
        name: of the model; the folder's by default.
        push_to: ``OWNER/NAME`` of a repository of the hub, which is made if it is not there; the hub's own client
            uploads the folder.
        private: whether a repository that is made is private.

    Raises:
        UserError: for a file that is no classifier or detector, files of another model, a folder that holds something
            else, and whatever goes wrong with the upload; the folder is there then.

    Example::

        share("work_dirs/digits/best.pth", "digits-tresnet", licence="apache-2.0")
    """
    if push_to is not None:
        require_repository(push_to)
    folder, path = Path(out), locate(checkpoint)
    _require_place(folder)
    model = shared_model(path, weights)
    title = name or (push_to or "").rpartition("/")[2] or folder.resolve().name
    limits = None if thresholds is None else _thresholds_for(model, thresholds)
    scores = scores_of(model, scored)
    with whole_folder(folder) as partial:
        model = _write_weights(model, partial, limits)
        if limits is not None:
            write_thresholds(limits, partial / THRESHOLDS)
        if exported is not None:
            copy_exported(exported, model, partial)
        files = sorted({CARD, *(file.name for file in partial.iterdir())})
        card = model_card(model, title, licence, scores, limits, files, push_to)
        (partial / CARD).write_text(card, encoding="utf-8", newline="")
        _make_room(folder, partial)
    reason = model.timm if isinstance(model.timm, str) else ""
    return Shared(folder, tuple(files), reason, upload(folder, push_to, private) if push_to else "")


def _write_weights(model: SharedModel, folder: Path, limits: Thresholds | None) -> SharedModel:
    """Writes weights and description, reads them back, and compares; without timm's form if timm cannot read that."""
    _write(model, folder, limits)
    if model.file is None:
        return model
    ours = assembled(replace(model.file, state_dict=dict(model.file.state_dict)))
    generator = torch.Generator().manual_seed(0)
    side = model.file.input_size
    pictures = torch.rand(2, 3, side, side, generator=generator)
    with torch.inference_mode():
        logits = ours(pictures)
    if isinstance(model.timm, TimmForm) and find_spec("timm") is not None:
        difference = difference_from_timm(folder, logits, pictures, model.timm)
        if isinstance(difference, str) or not difference <= TOLERANCE:
            reason = difference if isinstance(difference, str) else f"timm's logits are off by {difference:.1e}"
            model = replace(model, timm=reason, tensors=model.file.state_dict, names=OURS)
            _write(model, folder, limits)
    before, again = ours.state_dict(), load_model(folder).state_dict()
    if before.keys() != again.keys() or not all(torch.equal(tensor, again[key]) for key, tensor in before.items()):
        raise UserError(f"{model.path}: its copy has other weights, so it is not shared; report this")
    return model


def _write(model: SharedModel, folder: Path, limits: Thresholds | None) -> None:
    # Row-major, and none a view into another's memory, which safetensors refuses.
    tensors = {
        key: tensor.detach().clone(memory_format=torch.contiguous_format) for key, tensor in model.tensors.items()
    }
    save_safetensors(tensors, folder / WEIGHTS)
    content = json.dumps(_config(model, limits), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(f"{content}\n", encoding="utf-8", newline="")


def _config(model: SharedModel, limits: Thresholds | None) -> dict[str, Any]:
    meta = model.meta if limits is None else {**model.meta, "thresholds": limits.of_class}
    ours: dict[str, Any] = {"version": VERSION, "kind": model.kind, "names": model.names, "weights": model.weights}
    if isinstance(model.timm, TimmForm) and model.names != OURS:
        ours["classifier_layer"] = model.timm.layer
    config: dict[str, Any] = {}
    if isinstance(model.timm, TimmForm):
        form, count = model.timm, len(model.classes)
        config = {
            "architecture": form.architecture,
            "num_classes": count,
            **({"model_args": dict(form.arguments)} if form.arguments else {}),
            "label_names": list(model.classes),
            "pretrained_cfg": {"num_classes": count, **form.config},
        }
    return {**config, KEY: {**ours, "meta": to_json(meta)}}


def _thresholds_for(model: SharedModel, path: str | Path) -> Thresholds:
    """Thresholds of the model's classes, without the places of files that they were chosen on."""
    given = read_thresholds(path)
    chosen_on = given.chosen_on.get("checkpoint_sha256")
    if chosen_on is not None and chosen_on != sha256_of(model.path):
        raise UserError(f"{path}: was chosen on a run of another checkpoint than {model.path}; choose on one of that")
    given.limits(model.classes, "multilabel" if model.kind == CLASSIFIER else "detection")
    if model.kind == CLASSIFIER and model.file is not None and not model.file.multi_label:
        raise UserError(f"{path}: thresholds are for several labels per image, and the model chooses one class")
    kept = {}
    for key, value in given.chosen_on.items():
        is_place = key in ("run", "checkpoint", "config", "data")
        kept[key] = Path(str(value)).name if is_place else value
    return replace(given, chosen_on=kept)


def _require_place(folder: Path) -> None:
    """Raises UserError where the folder cannot be written: a file, or a folder that holds something else."""
    if folder.is_dir():
        others = [path.name for path in folder.iterdir()]
        if others and description_beside(folder / WEIGHTS) is None:
            raise UserError(f"{folder}: holds something else ({others[0]}); name a folder that is not there yet")
    elif folder.exists():
        raise UserError(f"{folder}: is a file; name a folder that is not there yet")


def _make_room(folder: Path, new: Path) -> None:
    """Removes an empty folder, or a shared one of the same content; renames another one."""
    if not folder.is_dir():
        return
    before, now = (
        {path.name: path.read_bytes() for path in each.iterdir() if path.is_file()} for each in (folder, new)
    )
    if before == now or not any(folder.iterdir()):
        shutil.rmtree(folder)
    else:
        tell(f"the shared folder that was {folder} is now {move_aside(folder)}")
