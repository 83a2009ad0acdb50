"""Draws an image beside the maps of its predicted labels."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.explain import ATTENTION, GRAD_CAM, explain, explanation_method
from tresnet_downstream.heat_maps import overlay
from tresnet_downstream.images import read_image
from tresnet_downstream.prediction.label_output import Explain

# The longer side of each panel in pixels, the number of panels in a row, and the largest number of maps.
PANEL, COLUMNS, MOST = 320, 4, 15
_PAPER, _INK, _MUTED, _ACCENT = (255, 255, 255), (24, 26, 30), (104, 110, 120), (0, 103, 163)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_MARGIN, _GAP, _CAPTION, _LEGEND = 20, 16, 46, 48
_TEXTS = {
    ATTENTION: "attention of the query of the class's group",
    GRAD_CAM: "Grad-CAM: regions that increase the logit of the class",
}


def explainer(model: ImageClassifier) -> Explain:
    """The function :func:`explained_image` for a model.

    Raises:
        UserError: as :func:`explanation_method`.
    """
    explanation_method(model)
    return partial(explained_image, model)


def explained_image(
    model: ImageClassifier, image: str, labels: Sequence[tuple[str, float]], classes: Sequence[int]
) -> Image.Image:
    """Draws the image and the map of each label, up to 15 labels, in their order.

    Args:
        model: a classifier from :func:`load_model`.
        image: path of the image.
        labels: names and probabilities of at least one label.
        classes: class indices of the labels, since several classes may have the same name.
    """
    pixels = read_image(image)
    height, width = pixels.shape[:2]
    scale = PANEL / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS)
    shown = labels[:MOST]
    maps = explain(model, pixels, classes[:MOST], size)
    panels = [(small, "", "")]
    for (name, probability), heat in zip(shown, maps, strict=True):
        # The text distinguishes a map of zeros from an error.
        value = f"{100 * probability:.0f}%" + ("" if heat.any() else ", empty map")
        panels.append((Image.fromarray(overlay(np.asarray(small), heat)), name, value))
    return _sheet(panels, _TEXTS[explanation_method(model)], len(labels) - len(shown))


def _sheet(panels: Sequence[tuple[Image.Image, str, str]], method: str, left_out: int) -> Image.Image:
    """Draws panels in rows, each with a name and a value below it, and a legend of the colours at the bottom."""
    small, font = ImageFont.load_default(13), ImageFont.load_default(16)
    rows = -(-len(panels) // COLUMNS)
    columns = -(-len(panels) // rows)  # so that rows have about the same length
    # Wide enough for a caption below a narrow image.
    cell, tall = max(panels[0][0].width, 150), panels[0][0].height
    width = max(2 * _MARGIN + columns * cell + (columns - 1) * _GAP, 420)
    height = 2 * _MARGIN + rows * (tall + _CAPTION) + (rows - 1) * _GAP + _LEGEND
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (image, name, value) in enumerate(panels):
        row, column = divmod(place, columns)
        left, top = _MARGIN + column * (cell + _GAP), _MARGIN + row * (tall + _CAPTION + _GAP)
        sheet.paste(image, (left, top))
        pen.text((left, top + tall + 5), _shortened(name, cell, font), fill=_INK, font=font)
        pen.text((left, top + tall + 26), value, fill=_ACCENT, font=small)
    _draw_legend(sheet, height - _MARGIN - 22, method, left_out, small)
    return sheet


def _draw_legend(sheet: Image.Image, top: int, method: str, left_out: int, font: Font) -> None:
    pen = ImageDraw.Draw(sheet)
    length, thick = 132, 12
    bar = overlay(np.full((thick, length, 3), 128, np.uint8), np.tile(np.linspace(0, 1, length), (thick, 1)))
    left = _MARGIN + 14
    pen.text((_MARGIN, top - 2), "0", fill=_MUTED, font=font)
    sheet.paste(Image.fromarray(bar), (left, top))
    text = "maximum of each map"
    pen.text((left + length + 7, top - 2), text, fill=_MUTED, font=font)
    notes = [method, *([f"{left_out:,} further labels are not shown"] if left_out > 0 else [])]
    start = left + length + 7 + font.getlength(text)
    for note in notes:
        if start + 24 + font.getlength(note) > sheet.width - _MARGIN:
            start, top = _MARGIN - 24, top + 17
        pen.text((start + 24, top - 2), note, fill=_MUTED, font=font)
        start += 24 + font.getlength(note)


def _shortened(text: str, width: float, font: Font) -> str:
    """The text, shortened with dots if it is wider than ``width``."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
