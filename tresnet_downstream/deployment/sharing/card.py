"""Writes the model card from the checkpoint and the scores of a run folder; the author adds the intended use."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tresnet_downstream.deployment.sharing.exported_file import EXPORTED
from tresnet_downstream.deployment.sharing.model import SharedModel
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.outcomes import DetectionRun, JointRun, MultilabelRun, Run, SingleLabelRun
from tresnet_downstream.evaluation.report.headline import Score
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.tasks.detection import analyse_detections
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis
from tresnet_downstream.evaluation.runs import DESCRIPTION, read_outcome
from tresnet_downstream.evaluation.thresholds import Thresholds
from tresnet_downstream.notices import tell
from tresnet_downstream.version import __version__
from tresnet_downstream.weights.download import sha256_of
from tresnet_downstream.weights.reading import stored_at
from tresnet_downstream.weights.shared import CLASSIFIER, CONFIG, WEIGHTS

_MOST_CLASSES = 200
_PLACEHOLDER = (
    "> **To be written by the author:** the purpose of the model and the kind of images; uses that are out of scope; "
    "known limits and biases of the data. Delete this note afterwards."
)
_FILES = {
    WEIGHTS: "the weights",
    CONFIG: "the description from which timm and tresnet-downstream build the network and prepare images",
    "README.md": "this card",
    "thresholds.json": "a threshold for each class",
    EXPORTED: "the network in ONNX, for ONNX Runtime",
}


@dataclass(frozen=True)
class Scores:
    """Scores of a run folder.

    Attributes:
        rows: title and scores of each part of the run, such as labels and boxes.
        about: the provenance of the run.
        num_images: number of images that were scored.
    """

    rows: list[tuple[str, list[Score]]]
    about: Mapping[str, object]
    num_images: int


def scores_of(model: SharedModel, scored: str | Path | None, resamples: int = 1000) -> Scores | None:
    """Reads the scores of a model from a run folder, and computes their intervals.

    Args:
        model: the model that is shared.
        scored: the run folder. None takes the checkpoint's folder; if that is a run of another model, a notice is
            printed.
        resamples: number of resamples of the bootstrap.

    Returns:
        The scores; None if ``scored`` is None and the checkpoint's folder has no run of this model.

    Raises:
        UserError: if ``scored`` cannot be read, or is a run of another checkpoint or of the checkpoint's other weights.
    """
    folder = Path(scored) if scored is not None else model.path.parent
    if scored is None and not any((folder / part / DESCRIPTION).is_file() for part in (".", "labels", "boxes")):
        if not _validation_scores(model):
            tell(
                "note: the model card has no scores: score the checkpoint with tresnet score, and share it again with "
                "`scored`"
            )
        return None
    try:
        outcome = read_outcome(folder)
        parts: list[Run] = [outcome.labels, outcome.boxes] if isinstance(outcome, JointRun) else [outcome]
        _require_same(model, parts[0].about, folder)
    except UserError as error:
        if scored is not None:
            raise
        tell(f"note: the model card has no scores, because the run folder of the checkpoint cannot be used: {error}")
        return None
    options = Options(resamples=resamples)
    rows = [row for part in parts for row in _scores(part, options)]
    first = parts[0]
    count = len(first.image_ids) if isinstance(first, DetectionRun) else len(first.images)
    return Scores(rows, first.about, count)


def _require_same(model: SharedModel, about: Mapping[str, object], folder: Path) -> None:
    if about.get("checkpoint_sha256") != sha256_of(model.path):
        raise UserError(f"{folder}: is a run of another checkpoint than {model.path}; score that checkpoint")
    if about.get("weights", model.weights) != model.weights:
        raise UserError(
            f"{folder}: is a run of the {about['weights']} weights, but the {model.weights} weights are shared"
        )


def _scores(run: Run, options: Options) -> Iterator[tuple[str, list[Score]]]:
    if isinstance(run, MultilabelRun):
        weights = options.weights(len(run.images))
        yield "labels", list(MultilabelAnalysis("", run, options, weights).headline_scores())
    elif isinstance(run, SingleLabelRun):
        weights = options.weights(len(run.images))
        yield "classes", list(SingleLabelAnalysis("", run, weights).headline_scores())
    else:
        weights = options.weights(len(run.image_ids))
        for kind in sorted(run.predictions):
            analysis = analyse_detections("", run, kind, weights, options)
            yield {"bbox": "boxes", "segm": "masks"}[kind], list(analysis.headline_scores())


def model_card(
    model: SharedModel,
    title: str,
    licence: str,
    scores: Scores | None,
    thresholds: Thresholds | None,
    files: Sequence[str],
    repository: str | None,
) -> str:
    """Writes the model card as Markdown, with the header that the Hugging Face hub reads.

    Args:
        model: the model that is shared.
        title: title of the card.
        licence: the licence of the weights, by the hub's identifier.
        scores: the scores of a run folder. None lists the validation scores in the checkpoint.
        thresholds: the thresholds in the shared folder, if there are any.
        files: names of the files in the shared folder.
        repository: ``OWNER/NAME`` of the repository. None writes ``OWNER/NAME`` into the example code.

    Returns:
        The content of ``README.md``.

    Examples:
        >>> from tresnet_downstream.deployment.sharing.model import shared_model
        >>> from tresnet_downstream.classification import ImageClassifier
        >>> backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
        >>> classifier = ImageClassifier(backbone, {"type": "LinearHead", "num_classes": 3})
        >>> torch.save(classifier.state_dict(), "classifier.pth")
        >>> model = shared_model(Path("classifier.pth"), weights=None)
        >>> card = model_card(model, "Digits", "mit", None, None, ["README.md"], None)
        >>> card.splitlines()[1], "# Digits" in card
        ('license: "mit"', True)
    """
    sections = [
        _header(model, licence),
        f"# {_line(title)}\n\n{_summary(model)}",
        f"## Intended use\n\n{_PLACEHOLDER}",
        f"## Training\n\n{_training(model)}",
        f"## Scores\n\n{_score_tables(model, scores)}",
        f"## Use\n\n{_use(model, repository or 'OWNER/NAME', files)}",
        *([f"## Thresholds\n\n{_thresholds(thresholds)}"] if thresholds is not None else []),
        f"## Classes\n\n{_classes(model)}",
        f"## Files\n\n{_table(['file', 'content'], [[f'`{name}`', _FILES[name]] for name in files])}",
        f"Written by tresnet-downstream {__version__} with torch {torch.__version__}.",
    ]
    return "\n\n".join(sections) + "\n"


def _header(model: SharedModel, licence: str) -> str:
    is_classifier = model.kind == CLASSIFIER
    task = "image-classification" if is_classifier else "object-detection"
    in_timm = not isinstance(model.timm, str)
    tags = [task, "tresnet-downstream", *(["timm"] if in_timm else [])]
    if model.file is not None and model.file.multi_label:
        tags.append("multi-label-classification")
    lines = [
        f"license: {json.dumps(licence)}",
        f"library_name: {'timm' if in_timm else 'tresnet-downstream'}",
        f"pipeline_tag: {task}",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _summary(model: SharedModel) -> str:
    count = f"{len(model.classes):,} class{'' if len(model.classes) == 1 else 'es'}"
    if model.file is None:
        return f"A detector, {_line(str(model.meta['model']['detector'].get('type')))}, with {count}."
    file = model.file
    kind = "several labels per image" if file.multi_label else "one label per image"
    network = f"TResNet, variant {file.variant}" if file.backbone["type"].endswith("TResNet") else file.variant
    if file.variant == "custom":
        sizes = file.layout().backbone.variant
        network = f"TResNet with {', '.join(map(str, sizes.layers))} blocks and width {sizes.width:g}"
    head = file.head["type"] if file.head else ""
    return (
        f"A classifier with {kind}: {_line(network)}, with a {_line(head)}, {count}, and "
        f"images of {file.input_size} x {file.input_size} pixels. The weights are the {model.weights} weights of the "
        "checkpoint."
    )


def _training(model: SharedModel) -> str:
    settings: dict[object, object] = {}
    for key in ("free", "fixed"):
        part = stored_at(model.training, "run", key)
        settings |= part if isinstance(part, Mapping) else {}
    rows = [[_line(str(key)), _line(_short(value))] for key, value in settings.items() if _is_listed(key, value)]
    if "epoch" in model.training:
        rows.insert(0, ["epochs trained", _line(str(model.training["epoch"]))])
    if not rows:
        return "The checkpoint does not contain the settings of its training."
    return _table(["setting", "value"], rows)


def _is_listed(key: object, value: object) -> bool:
    """Whether the card lists a setting. It lists settings with a value, except the network, which is in config.json."""
    return key not in ("model", "val_steps", "processes", "save_best", "param_scheduler") and value not in (
        None,
        [],
        {},
    )


def _short(value: object) -> str:
    """A setting as text. A component is written as its type with its arguments."""
    if isinstance(value, Mapping):
        kind = str(value.get("type", "")).rpartition(".")[2]
        arguments = ", ".join(
            f"{key}={_short(item)}" for key, item in value.items() if key != "type" and item is not None
        )
        return f"{kind}({arguments})" if kind else arguments
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value))
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)


def _validation_scores(model: SharedModel) -> dict[str, float]:
    """The scores that the training's validation stored in the checkpoint. Detectors' checkpoints have none."""
    return {
        str(key): value
        for key, value in model.score.items()
        if type(value) in (int, float) and "/" not in str(key) and key not in ("epoch", "step")
    }


def _score_tables(model: SharedModel, scores: Scores | None) -> str:
    if scores is None:
        rows = [[_line(name), f"{value:.2f}"] for name, value in _validation_scores(model).items()]
        if not rows:
            return "Not measured."
        return f"{_table(['score', 'value'], rows)}\n\nScores of the validation during training, without intervals."
    parts = []
    for title, part_scores in scores.rows:
        rows = [[_line(score.title), _number(score.value), _interval(score)] for score in part_scores]
        heading = f"### {title.capitalize()}\n\n" if len(scores.rows) > 1 else ""
        parts.append(heading + _table(["score, %", "value", "95% interval"], rows))
    about = scores.about
    data = f" of `{_line(Path(str(about['data'])).name)}`" if about.get("data") else ""
    tta = f" With test-time augmentation: {_line(str(about['tta']))}." if about.get("tta") else ""
    parts.append(
        f"On {scores.num_images:,} images{data}, scored on {_line(str(about.get('date', ''))[:10])}.{tta} Intervals: "
        "bootstrap over images, 1,000 resamples. They show how much a score may vary on other images of the same kind."
    )
    return "\n\n".join(parts)


def _number(value: float) -> str:
    return "" if value != value else f"{value:.2f}"


def _interval(score: Score) -> str:
    ends = score.interval()
    return "" if ends is None or ends[0] != ends[0] else f"{ends[0]:.2f} to {ends[1]:.2f}"


def _use(model: SharedModel, repository: str, files: Sequence[str]) -> str:
    parts = [_with_tresnet_downstream(model, repository)]
    if isinstance(model.timm, str):
        parts.append(f"timm cannot load this model: {_line(model.timm)}.")
    else:
        parts.append(_with_timm(model, repository))
    if EXPORTED in files:
        parts.append(f"`{EXPORTED}` needs ONNX Runtime and no torch: `tresnet predict {EXPORTED} image.jpg`.")
    return "\n\n".join(parts)


def _with_tresnet_downstream(model: SharedModel, repository: str) -> str:
    if model.kind == CLASSIFIER:
        code = (
            "from tresnet_downstream import load_model, predict\n\n"
            f'model = load_model("hf://{repository}")\n'
            'probabilities = predict(model, "image.jpg")[0]  # in the order of model.classes'
        )
    else:
        code = (
            "from tresnet_downstream.detection.predict import detect, load_detector\n\n"
            f'model = load_detector("hf://{repository}")\n'
            'detections = next(detect(model, "image.jpg"))  # boxes, scores and labels'
        )
    return f"With tresnet-downstream:\n\n```python\n{code}\n```"


def _with_timm(model: SharedModel, repository: str) -> str:
    assert model.file is not None
    last = "logits.sigmoid()" if model.file.multi_label else "logits.softmax(-1)"
    code = (
        "import timm\nfrom PIL import Image\n\n"
        f'model = timm.create_model("hf-hub:{repository}", pretrained=True).eval()\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n"
        'logits = model(transform(Image.open("image.jpg").convert("RGB"))[None])\n'
        f"probabilities = {last}  # in the order of model.pretrained_cfg's label_names"
    )
    notes = ["timm resizes images with Pillow, so its probabilities differ slightly from those of tresnet-downstream."]
    if not isinstance(model.timm, str) and not model.timm.is_exact:
        notes.append(
            "The model's preprocessing has steps that timm does not have; timm's transform only resizes the images."
        )
    link = "[timm](https://github.com/huggingface/pytorch-image-models)"
    return f"With {link}:\n\n```python\n{code}\n```\n\n{' '.join(notes)}"


def _thresholds(thresholds: Thresholds) -> str:
    return (
        f"`thresholds.json` has a threshold for each class ({_line(thresholds.objective)}, {thresholds.scope}). A "
        "class is predicted if its probability is above its threshold. `load_model` sets `model.thresholds`."
    )


def _classes(model: SharedModel) -> str:
    shown = ", ".join(_line(name) for name in model.classes[:_MOST_CLASSES])
    rest = len(model.classes) - _MOST_CLASSES
    more = f" and {rest:,} more, in `{CONFIG}`" if rest > 0 else ""
    return f"{len(model.classes):,}, in the order of the outputs: {shown}{more}."


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(text: str) -> str:
    """A text from the user as one line of escaped Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
