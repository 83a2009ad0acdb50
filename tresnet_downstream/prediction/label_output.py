"""Writes the labels of images as lines of text or JSON, and draws them."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.thresholds import Thresholds
from tresnet_downstream.files import Earlier
from tresnet_downstream.images import drawn_names, read_image, require_apart, write_image
from tresnet_downstream.prediction.labels import Predictor, chosen_classes, labels_of, predict_each

# The defaults: labels with a probability above 0.5, or the five most probable labels of a softmax.
THRESHOLD, TOP_K = 0.5, 5
# A function that draws a map for each label, from the path of the image, the names and probabilities of the labels, and
# their class indices.
Explain = Callable[[str, Sequence[tuple[str, float]], Sequence[int]], Image.Image]


def label_images(
    model: Predictor,
    images: Sequence[str],
    threshold: float | Thresholds | None = None,
    top_k: int | None = None,
    batch_size: int = 16,
    out: str | Path | None = None,
    as_json: bool = False,
    explain: Explain | None = None,
) -> Iterator[str]:
    """Predicts the labels of images and yields a line for each image. Unreadable images raise an error at the end.

    Args:
        model: a classifier from :func:`load_model`, or an exported one.
        images: paths of the images.
        threshold: labels with a probability above it are listed; 0 to 1, or a threshold for each class. None takes 0.5
            for multi-label models if ``top_k`` is None too.
        top_k: largest number of labels of an image. None takes 5 for single-label models if ``threshold`` is None too.
        batch_size: number of images in a batch.
        out: folder for the images with their labels; None to draw none.
        as_json: whether lines are JSON objects of ``image`` and ``labels``, or ``error``. With ``explain``, they also
            have ``explanation``: the file of the maps, or null if there is no label.
        explain: draws a map for each label to ``NAME_explained.jpg`` in ``out``, see
            :func:`classification.explained_images.explainer`; None for no maps.

    Yields:
        The lines.

    Raises:
        UserError: if an argument is out of range, the model has no classes, or the folder cannot be written; at the
            end, if images cannot be read.
    """
    if not model.classes:
        raise UserError("the model has no head, so it predicts no labels")
    if isinstance(threshold, float | int) and not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold:g}: give a probability, 0 to 1")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k={top_k}: give a whole number, at least 1")
    if explain is not None and out is None:
        raise UserError("`explain` draws images: name a folder for them by `out`")
    if threshold is None and top_k is None:
        threshold, top_k = (THRESHOLD, None) if model.multi_label else (None, TOP_K)
    limits = threshold.limits(model.classes, "multilabel") if isinstance(threshold, Thresholds) else threshold
    if out is not None:
        require_apart(images, out)
    names = drawn_names([*images, *map(_explained, images if explain else ())]) if out is not None else {}
    earlier = Earlier(out) if out is not None else None
    errors = []
    for prediction in predict_each(model, images, batch_size):
        image = str(prediction.image)
        if prediction.probabilities is None:
            errors.append(prediction.error)
            if as_json:
                yield json.dumps({"image": image, "error": prediction.error}, ensure_ascii=False)
            continue
        labels = labels_of(prediction.probabilities, model.classes, limits, top_k)
        if earlier is not None:
            write_image(draw_labels(image, labels), names[image], earlier)
        explanation = {}
        if explain is not None and earlier is not None:
            if labels:
                chosen = chosen_classes(prediction.probabilities, limits, top_k)
                write_image(explain(image, labels, chosen), names[_explained(image)], earlier)
            explanation = {"explanation": str(earlier.folder / names[_explained(image)]) if labels else None}
        yield _json_line(image, labels, explanation) if as_json else _text_line(image, labels)
    if errors:
        count = f"; {len(errors)} of {len(images)} images cannot be read" if len(images) > 1 else ""
        raise UserError(f"{errors[0]}{count}")


def _text_line(image: str, labels: Sequence[tuple[str, float]]) -> str:
    return f"{image}: {', '.join(f'{name} {p:.3f}' for name, p in labels) or 'no label'}"


def _json_line(image: str, labels: Sequence[tuple[str, float]], explanation: Mapping[str, str | None]) -> str:
    entries = [{"label": name, "probability": round(p, 6)} for name, p in labels]
    return json.dumps({"image": image, "labels": entries, **explanation}, ensure_ascii=False)


def _explained(image: str) -> str:
    """The path by which :func:`drawn_names` names the file of the maps. It is not the path of an image."""
    return os.path.join(image, f"{Path(image).stem}_explained")


def draw_labels(image: str | os.PathLike[str], labels: Sequence[tuple[str, float]]) -> Image.Image:
    """Draws the labels of an image file and their probabilities below the image."""
    return labels_below(Image.fromarray(read_image(image)), labels)


def labels_below(image: Image.Image, labels: Sequence[tuple[str, float]]) -> Image.Image:
    """Draws labels and their probabilities below an image."""
    size = max(14, round(min(image.size) / 22))
    font = ImageFont.load_default(size)
    lines = _wrapped([f"{name} {100 * p:.0f}%" for name, p in labels] or ["no label"], image.width - size, font)
    panel = Image.new("RGB", (image.width, image.height + round((len(lines) * 1.35 + 0.7) * size)), "white")
    panel.paste(image)
    pen = ImageDraw.Draw(panel)
    for row, line in enumerate(lines):
        pen.text((size / 2, image.height + (0.35 + 1.35 * row) * size), line, fill=(25, 25, 25), font=font)
    return panel


def _wrapped(words: Sequence[str], width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]},  {word}"
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
