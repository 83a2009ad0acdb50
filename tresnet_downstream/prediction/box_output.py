"""Writes the boxes in images as lines of text or JSON, and draws them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.thresholds import Thresholds
from tresnet_downstream.files import Earlier
from tresnet_downstream.images import drawn_names, pixels_of, require_apart, write_image
from tresnet_downstream.prediction import label_output
from tresnet_downstream.prediction.boxes import BoxFinder, Detections
from tresnet_downstream.prediction.labels import labels_of

THRESHOLD = 0.3
# Colours for people with colour blindness (Okabe and Ito, 2008). Classes use them in order, repeatedly.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def detect_in_images(
    model: BoxFinder,
    images: Sequence[str],
    threshold: float | Thresholds | None = None,
    top_k: int | None = None,
    batch_size: int = 1,
    out: str | Path | None = None,
    as_json: bool = False,
) -> Iterator[str]:
    """Detects boxes in images and yields a line for each image. Unreadable images raise an error at the end.

    If the network also predicts labels of the image, the line has the labels with a probability above 0.5 before the
    boxes, as ``labels``.

    Args:
        model: a ``LoadedDetector``, or an exported detector.
        images: paths of the images.
        threshold: boxes with a score above it are listed; 0 to 1, or a threshold for each class; None for 0.3.
        top_k: largest number of boxes in an image; None for all.
        batch_size: largest number of images in a batch.
        out: folder for the images with their boxes; None to draw none.
        as_json: whether lines are JSON objects of ``image`` and ``boxes``, or ``error``.

    Yields:
        The lines.

    Raises:
        UserError: if an argument is out of range or the folder cannot be written; at the end, if images cannot be read.
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
    errors = []
    for detections in model.find(images, batch_size, float(limits.min())):
        image = str(detections.image)
        if detections.error:
            errors.append(detections.error)
            if as_json:
                yield json.dumps({"image": image, "error": detections.error}, ensure_ascii=False)
            continue
        indices = np.flatnonzero(detections.scores > limits[detections.labels])[:top_k]
        labels = _labels_of_image(detections, model.classes)
        if earlier is not None:
            drawing = draw_boxes(detections, model.classes, indices)
            drawing = drawing if labels is None else label_output.labels_below(drawing, labels)
            write_image(drawing, names[image], earlier)
        yield _line(image, detections, model.classes, indices, as_json, labels)
    if errors:
        count = f"; {len(errors)} of {len(images)} images cannot be read" if len(images) > 1 else ""
        raise UserError(f"{errors[0]}{count}")


def _labels_of_image(detections: Detections, classes: Sequence[str]) -> list[tuple[str, float]] | None:
    """Names and probabilities of the labels of the image, best first; None if the network predicts only boxes."""
    if detections.label_probabilities is None:
        return None
    return labels_of(detections.label_probabilities, classes, label_output.THRESHOLD, None)


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
        of_image = {} if labels is None else {"labels": entries}
        return json.dumps({"image": image, **of_image, "boxes": boxes}, ensure_ascii=False)
    texts = [f"{box['label']} {box['score']:.3f} at {' '.join(f'{v:.0f}' for v in box['box'])}" for box in boxes]
    prefix = "" if labels is None else f"{', '.join(f'{name} {share:.3f}' for name, share in labels) or 'no label'}; "
    return f"{image}: {prefix}{', '.join(texts) or 'nothing'}"


def draw_boxes(detections: Detections, classes: Sequence[str], indices: Sequence[int] | np.ndarray) -> Image.Image:
    """Draws the boxes at ``indices``, best first, with masks, classes and scores on the image."""
    pixels = pixels_of(detections.image).copy()
    # Small images are enlarged, so that the text is readable and covers a small part.
    zoom = max(1, min(round(480 / min(pixels.shape[:2])), 4096 // max(pixels.shape[:2])))
    if detections.masks is not None:
        for index in indices:
            inside, colour = detections.masks[index], COLOURS[detections.labels[index] % len(COLOURS)]
            pixels[inside] = (0.55 * pixels[inside] + 0.45 * np.array(colour)).astype(np.uint8)
    drawing = Image.fromarray(pixels)
    drawing = drawing.resize((drawing.width * zoom, drawing.height * zoom), Image.Resampling.BICUBIC)
    size = max(14, round(min(drawing.size) / 32))
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(drawing)
    for index in reversed(list(indices)):  # the best box is drawn last, on top
        colour = COLOURS[detections.labels[index] % len(COLOURS)]
        left, top, right, bottom = (float(value) * zoom for value in detections.boxes[index])
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=max(2, size // 7))
        text = f"{classes[detections.labels[index]]} {detections.scores[index]:.2f}"
        width = font.getlength(text) + size / 2
        x = min(max(left, 0), max(drawing.width - width, 0))
        y = top - 1.3 * size if top >= 1.3 * size else max(top, 0)
        pen.rectangle((x, y, x + width, y + 1.3 * size), fill=colour)
        dark = sum(share * value for share, value in zip((0.3, 0.59, 0.11), colour, strict=True)) > 110
        pen.text((x + size / 4, y), text, fill="black" if dark else "white", font=font)
    return drawing
