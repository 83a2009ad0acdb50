"""Labels of many pictures as lines of text or JSON, and drawn."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.thresholds import Thresholds
from tresnet_downstream.files import Earlier
from tresnet_downstream.pictures import drawn_names, read_image, require_apart, write_picture
from tresnet_downstream.prediction.labels import Predictor, chosen_classes, labels_of, predict_each

# Where nobody says which labels to give: those more likely than not, or the likeliest five of a softmax.
THRESHOLD, TOP_K = 0.5, 5
# Draws where a network looks for each label: from the picture's path, names and probabilities of the labels, and the
# numbers of their classes.
Explain = Callable[[str, Sequence[tuple[str, float]], Sequence[int]], Image.Image]


def label_pictures(
    model: Predictor,
    images: Sequence[str],
    threshold: float | Thresholds | None = None,
    top_k: int | None = None,
    batch_size: int = 16,
    out: str | Path | None = None,
    as_json: bool = False,
    explain: Explain | None = None,
) -> Iterator[str]:
    """A line for each picture; those that cannot be read are passed over and told of at the end.

    Args:
        model: from :func:`load_model`, or an exported one.
        images: paths.
        threshold: what the probability of a label must be above, 0 to 1, or one for each class; None takes 0.5 for
            multi-label models without ``top_k``.
        top_k: most labels of a picture; None takes 5 for single-label models without ``threshold``.
        batch_size: pictures that go through the network together.
        out: folder for the pictures with their labels.
        as_json: whether lines are JSON objects of ``image`` and ``labels``, or ``error``; with ``explain`` also of
            ``explanation``, the file that was written, or null where no label is shown.
        explain: draws where the network looks for each label, too, into ``NAME_explained.jpg``; see
            :func:`classification.explained_images.explainer`.

    Yields:
        the lines.

    Raises:
        UserError: for options out of range, a model without classes, a folder that cannot be written; and at the
            end, if pictures could not be read.
    """
    if not model.classes:
        raise UserError("the model has no head, so it gives no labels")
    if isinstance(threshold, float | int) and not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold:g}: give a probability, 0 to 1")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k={top_k}: give a whole number, at least 1")
    if explain is not None and out is None:
        raise UserError("`explain` draws pictures: name the folder that they go to as `out`")
    if threshold is None and top_k is None:
        threshold, top_k = (THRESHOLD, None) if model.multi_label else (None, TOP_K)
    limits = threshold.limits(model.classes, "multilabel") if isinstance(threshold, Thresholds) else threshold
    if out is not None:
        require_apart(images, out)
    names = drawn_names([*images, *map(_explained, images if explain else ())]) if out is not None else {}
    earlier = Earlier(out) if out is not None else None
    failed = []
    for prediction in predict_each(model, images, batch_size):
        image = str(prediction.image)
        if prediction.probabilities is None:
            failed.append(prediction.error)
            if as_json:
                yield json.dumps({"image": image, "error": prediction.error}, ensure_ascii=False)
            continue
        labels = labels_of(prediction.probabilities, model.classes, limits, top_k)
        if earlier is not None:
            write_picture(draw_labels(image, labels), names[image], earlier)
        explanation = {}
        if explain is not None and earlier is not None:
            if labels:
                chosen = chosen_classes(prediction.probabilities, limits, top_k)
                write_picture(explain(image, labels, chosen), names[_explained(image)], earlier)
            explanation = {"explanation": str(earlier.folder / names[_explained(image)]) if labels else None}
        yield _json_line(image, labels, explanation) if as_json else _text_line(image, labels)
    if failed:
        count = f"; {len(failed)} of {len(images)} pictures could not be read" if len(images) > 1 else ""
        raise UserError(f"{failed[0]}{count}")


def _text_line(image: str, labels: Sequence[tuple[str, float]]) -> str:
    return f"{image}: {', '.join(f'{name} {p:.3f}' for name, p in labels) or 'no label'}"


def _json_line(image: str, labels: Sequence[tuple[str, float]], explanation: Mapping[str, str | None]) -> str:
    entries = [{"label": name, "probability": round(p, 6)} for name, p in labels]
    return json.dumps({"image": image, "labels": entries, **explanation}, ensure_ascii=False)


def _explained(image: str) -> str:
    """What :func:`drawn_names` is asked for the picture of the maps by: a path that no picture has."""
    return os.path.join(image, f"{Path(image).stem}_explained")


def draw_labels(image: str | os.PathLike[str], labels: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture with its labels and their probabilities below it."""
    return labels_below(Image.fromarray(read_image(image)), labels)


def labels_below(picture: Image.Image, labels: Sequence[tuple[str, float]]) -> Image.Image:
    """A picture with labels and their probabilities below it."""
    size = max(14, round(min(picture.size) / 22))
    font = ImageFont.load_default(size)
    lines = _wrapped([f"{name} {100 * p:.0f}%" for name, p in labels] or ["no label"], picture.width - size, font)
    panel = Image.new("RGB", (picture.width, picture.height + round((len(lines) * 1.35 + 0.7) * size)), "white")
    panel.paste(picture)
    pen = ImageDraw.Draw(panel)
    for row, line in enumerate(lines):
        pen.text((size / 2, picture.height + (0.35 + 1.35 * row) * size), line, fill=(25, 25, 25), font=font)
    return panel


def _wrapped(words: Sequence[str], width: float, font: Any) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]},  {word}"
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
