"""Writes a shared folder: weights, description, model card, and optionally thresholds and an exported file."""

import json
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from tresnet_downstream.classification.model_loading import assembled, load_model
from tresnet_downstream.deployment.sharing.card import model_card, scores_of
from tresnet_downstream.deployment.sharing.exported_file import copy_exported
from tresnet_downstream.deployment.sharing.licences import check_licence
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
    """The result of :func:`share`.

    Attributes:
        folder: path of the shared folder.
        files: names of its files.
        not_in_timm: the reason why timm cannot load the folder; empty if it can.
        url: URL of the repository; empty if the folder was not uploaded.
        loader: the function of this toolkit that loads the folder: ``load_model`` or ``load_detector``.
    """

    folder: Path
    files: tuple[str, ...]
    not_in_timm: str = ""
    url: str = ""
    loader: str = "load_model"


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
    """Writes a trained model as a folder for the Hugging Face hub, and optionally uploads it.

    ``load_model`` (for a detector, ``load_detector``) loads the folder and, after an upload, ``hf://OWNER/NAME``. If
    timm has the network, timm loads it as ``local-dir:FOLDER`` and ``hf-hub:OWNER/NAME``; otherwise the model card
    says why not. The folder contains

    - ``model.safetensors``: the weights;
    - ``config.json``: the description for timm, and under ``tresnet_downstream`` the description for ``load_model``;
    - ``README.md``: the model card, with a section that the author has to write;
    - ``thresholds.json``, if ``thresholds`` is given, and ``model.onnx``, if ``exported`` is given.

    The folder contains no paths of this machine and no other content of the checkpoint.

    Args:
        checkpoint: a path, a URL or a name of the catalogue.
        out: the folder to write. It appears only when it is complete. If ``out`` is a shared folder with other content,
            that folder is renamed to ``OUT_1``.
        licence: the licence of the weights, by the hub's identifier, such as ``apache-2.0``.
        weights: ``raw`` or ``averaged``. None takes the weights with the better validation score.
        scored: a run folder of this checkpoint, from which the card gets scores with 95% intervals. None takes the
            checkpoint's folder if it is a run folder.
        thresholds: a file of thresholds for the model's classes.
        exported: the model's ONNX file.
        name: title of the model card. None takes the name of the repository, or of the folder.
        push_to: ``OWNER/NAME`` of a repository of the hub. The folder is uploaded to it with ``huggingface_hub``; the
            repository is created if it does not exist.
        private: whether a new repository is private.

    Raises:
        UserError: if ``licence`` has not the form of an identifier, the file is not a classifier or a detector, a run
            folder, thresholds or an exported file belong to another model, ``out`` contains something else, or the
            upload fails. After a failed upload, the folder is complete.

    Examples:
        >>> from tresnet_downstream import load_model
        >>> from tresnet_downstream.classification import ImageClassifier
        >>> backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
        >>> classifier = ImageClassifier(backbone, {"type": "LinearHead", "num_classes": 3})
        >>> torch.save(classifier.state_dict(), "classifier.pth")
        >>> share("classifier.pth", "shared", licence="apache-2.0").files
        note: the model card has no scores: score the checkpoint with tresnet score, and share it again with `scored`
        ('README.md', 'config.json', 'model.safetensors')
        >>> load_model("shared").classes
        ('0', '1', '2')
    """
    if push_to is not None:
        require_repository(push_to)
    check_licence(licence)
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
    url = upload(folder, push_to, private) if push_to else ""
    return Shared(folder, tuple(files), reason, url, "load_model" if model.kind == CLASSIFIER else "load_detector")


def _write_weights(model: SharedModel, folder: Path, limits: Thresholds | None) -> SharedModel:
    """Writes weights and description, and compares them after loading. If timm's logits differ, its form is omitted."""
    _write(model, folder, limits)
    if model.file is None:
        return model
    original = assembled(replace(model.file, state_dict=dict(model.file.state_dict)))
    generator = torch.Generator().manual_seed(0)
    side = model.file.input_size
    images = torch.rand(2, 3, side, side, generator=generator)
    with torch.inference_mode():
        logits = original(images)
    if isinstance(model.timm, TimmForm) and find_spec("timm") is not None:
        difference = difference_from_timm(folder, logits, images, model.timm)
        if isinstance(difference, str) or not difference <= TOLERANCE:
            reason = difference if isinstance(difference, str) else f"timm's logits differ by {difference:.1e}"
            model = replace(model, timm=reason, tensors=model.file.state_dict, names=OURS)
            _write(model, folder, limits)
    weights, copied = original.state_dict(), load_model(folder).state_dict()
    if weights.keys() != copied.keys() or not all(torch.equal(tensor, copied[key]) for key, tensor in weights.items()):
        raise UserError(f"{model.path}: the copy has other weights, so it was not shared; please report this")
    return model


def _write(model: SharedModel, folder: Path, limits: Thresholds | None) -> None:
    # safetensors refuses tensors that are not contiguous or that share memory.
    tensors = {
        key: tensor.detach().clone(memory_format=torch.contiguous_format) for key, tensor in model.tensors.items()
    }
    save_safetensors(tensors, folder / WEIGHTS)
    content = json.dumps(_config(model, limits), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(f"{content}\n", encoding="utf-8", newline="")


def _config(model: SharedModel, limits: Thresholds | None) -> dict[str, object]:
    meta = model.meta if limits is None else {**model.meta, "thresholds": limits.of_class}
    ours: dict[str, object] = {"version": VERSION, "kind": model.kind, "names": model.names, "weights": model.weights}
    if isinstance(model.timm, TimmForm) and model.names != OURS:
        ours["classifier_layer"] = model.timm.layer
    config: dict[str, object] = {}
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
    """Reads thresholds for the model's classes, without the folders of the files on which they were chosen."""
    thresholds = read_thresholds(path)
    digest = thresholds.chosen_on.get("checkpoint_sha256")
    if digest is not None and digest != sha256_of(model.path):
        raise UserError(
            f"{path}: the thresholds were chosen on a run of another checkpoint than {model.path}; choose them on a "
            "run of that checkpoint"
        )
    thresholds.limits(model.classes, "multilabel" if model.kind == CLASSIFIER else "detection")
    if model.kind == CLASSIFIER and model.file is not None and not model.file.multi_label:
        raise UserError(
            f"{path}: thresholds need several labels per image, but this model predicts one class per image"
        )
    chosen_on = {}
    for key, value in thresholds.chosen_on.items():
        is_path = key in ("run", "checkpoint", "config", "data")
        chosen_on[key] = Path(str(value)).name if is_path else value
    return replace(thresholds, chosen_on=chosen_on)


def _require_place(folder: Path) -> None:
    """Raises UserError if the path is a file, or a folder that is neither empty nor a shared folder."""
    if folder.is_dir():
        others = [path.name for path in folder.iterdir()]
        if others and description_beside(folder / WEIGHTS) is None:
            raise UserError(
                f"{folder}: is not a shared folder and contains {others[0]}; name a folder that does not exist yet"
            )
    elif folder.exists():
        raise UserError(f"{folder}: is a file; name a new folder")


def _make_room(folder: Path, new: Path) -> None:
    """Removes the folder if it is empty or has the same content as the new one, and renames it otherwise."""
    if not folder.is_dir():
        return
    before, now = (
        {path.name: path.read_bytes() for path in each.iterdir() if path.is_file()} for each in (folder, new)
    )
    if before == now or not any(folder.iterdir()):
        shutil.rmtree(folder)
    else:
        tell(f"the existing shared folder {folder} was renamed to {move_aside(folder)}")
