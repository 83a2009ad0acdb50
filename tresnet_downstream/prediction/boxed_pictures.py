"""Detections of many pictures as lines of text or JSON, and drawn."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.thresholds import Thresholds
from tresnet_downstream.files import Earlier
from tresnet_downstream.pictures import drawn_names, pixels_of, require_apart, write_picture
from tresnet_downstream.prediction import labelled_pictures
from tresnet_downstream.prediction.boxes import BoxFinder, Detections
from tresnet_downstream.prediction.labels import labels_of

THRESHOLD = 0.3
# Told apart also by those who see no red or green (Okabe and Ito, 2008); used in turn.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def detect_in_pictures(
    model: BoxFinder,
    images: Sequence[str],
    threshold: float | Thresholds | None = None,
    top_k: int | None = None,
    batch_size: int = 1,
    out: str | Path | None = None,
    as_json: bool = False,
) -> Iterator[str]:
    """A line for each picture; those that cannot be read are passed over and told of at the end.

    If the network gives labels of the whole picture too, those with a probability above 0.5 stand before the boxes, as
    ``labels``.

    Args:
        model: a ``LoadedDetector``, or an exported one.
        images: paths.
        threshold: what the score of a box must be above, 0 to 1, or one for each class; None takes 0.3.
        top_k: most boxes of a picture; None for all.
        batch_size: most pictures that go through the network together.
        out: folder for the pictures with their boxes.
        as_json: whether lines are JSON objects of ``image`` and ``boxes``, or ``error``.

    Yields:
        the lines.

    Raises:
        UserError: for options out of range and a folder that cannot be written; and at the end, if pictures could
            not be read.
    """
    threshold = THRESHOLD if threshold is None else threshold
    if isinstance(threshold, float | int) and not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold:g}: give a score, 0 to 1")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k={top_k}: give a whole number, at least 1")
    by_class = threshold.limits(model.classes, "detection") if isinstance(threshold, Thresholds) else threshold
    limits = np.broadcast_to(np.asarray(by_class, np.float64), len(model.classes))
    if out is not None:
        require_apart(images, out)
    names = drawn_names(images) if out is not None else {}
    earlier = Earlier(out) if out is not None else None
    failed = []
    for detections in model.find(images, batch_size, float(limits.min())):
        image = str(detections.image)
        if detections.error:
            failed.append(detections.error)
            if as_json:
                yield json.dumps({"image": image, "error": detections.error}, ensure_ascii=False)
            continue
        indices = np.flatnonzero(detections.scores > limits[detections.labels])[:top_k]
        labels = _labels_of_picture(detections, model.classes)
        if earlier is not None:
            picture = draw_boxes(detections, model.classes, indices)
            picture = picture if labels is None else labelled_pictures.labels_below(picture, labels)
            write_picture(picture, names[image], earlier)
        yield _line(image, detections, model.classes, indices, as_json, labels)
    if failed:
        count = f"; {len(failed)} of {len(images)} pictures could not be read" if len(images) > 1 else ""
        raise UserError(f"{failed[0]}{count}")


def _labels_of_picture(detections: Detections, classes: Sequence[str]) -> list[tuple[str, float]] | None:
    """Names and probabilities of the labels of the whole picture, best first; None if the network gives boxes alone."""
    if detections.label_probabilities is None:
        return None
    return labels_of(detections.label_probabilities, classes, labelled_pictures.THRESHOLD, None)


def _line(
    image: str,
    detections: Detections,
    classes: Sequence[str],
    indices: np.ndarray,
    as_json: bool,
    labels: Sequence[tuple[str, float]] | None,
) -> str:
    boxes = [
        {
            "label": classes[detections.labels[index]],
            "score": round(float(detections.scores[index]), 6),
            "box": [round(float(value), 2) for value in detections.boxes[index]],
        }
        for index in indices
    ]
    if as_json:
        entries = [{"label": name, "probability": round(share, 6)} for name, share in labels or ()]
        of_picture = {} if labels is None else {"labels": entries}
        return json.dumps({"image": image, **of_picture, "boxes": boxes}, ensure_ascii=False)
    texts = [f"{box['label']} {box['score']:.3f} at {' '.join(f'{v:.0f}' for v in box['box'])}" for box in boxes]
    before = "" if labels is None else f"{', '.join(f'{name} {share:.3f}' for name, share in labels) or 'no label'}; "
    return f"{image}: {before}{', '.join(texts) or 'nothing'}"


def draw_boxes(detections: Detections, classes: Sequence[str], indices: Sequence[int] | np.ndarray) -> Image.Image:
    """The picture with the boxes at ``indices``, best first, with masks, classes and scores."""
    pixels = pixels_of(detections.image).copy()
    # Small pictures are enlarged, so that the text can be read and hides little.
    zoom = max(1, min(round(480 / min(pixels.shape[:2])), 4096 // max(pixels.shape[:2])))
    if detections.masks is not None:
        for index in indices:
            inside, colour = detections.masks[index], COLOURS[detections.labels[index] % len(COLOURS)]
            pixels[inside] = (0.55 * pixels[inside] + 0.45 * np.array(colour)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.BICUBIC)
    size = max(14, round(min(picture.size) / 32))
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(picture)
    for index in reversed(list(indices)):  # the best on top
        colour = COLOURS[detections.labels[index] % len(COLOURS)]
        left, top, right, bottom = (float(value) * zoom for value in detections.boxes[index])
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=max(2, size // 7))
        text = f"{classes[detections.labels[index]]} {detections.scores[index]:.2f}"
        width = font.getlength(text) + size / 2
        x = min(max(left, 0), max(picture.width - width, 0))
        y = top - 1.3 * size if top >= 1.3 * size else max(top, 0)
        pen.rectangle((x, y, x + width, y + 1.3 * size), fill=colour)
        dark = sum(share * value for share, value in zip((0.3, 0.59, 0.11), colour, strict=True)) > 110
        pen.text((x + size / 4, y), text, fill="black" if dark else "white", font=font)
    return picture
