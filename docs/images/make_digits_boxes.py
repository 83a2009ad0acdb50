"""Draws what the detection demo's network finds: python docs/images/make_digits_boxes.py CHECKPOINT OUT.jpg."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tresnet_downstream.detection.predict import detect, load_detector
from tresnet_downstream.prediction.box_output import draw_boxes

COLUMNS, SIDE, GAP = 4, 300, 8
THRESHOLD = 0.5


def main(checkpoint: str, out: str) -> None:
    """Lays the first eight validation images out in two rows."""
    model = load_detector(checkpoint)
    pictures = sorted(Path("data/digits/val").glob("*.jpg"))[: 2 * COLUMNS]
    width, height = (count * (SIDE + GAP) - GAP for count in (COLUMNS, 2))
    sheet = Image.new("RGB", (width, height), "white")
    for place, found in enumerate(detect(model, pictures)):
        drawn = draw_boxes(found, model.classes, np.flatnonzero(found.scores >= THRESHOLD))
        corner = tuple(step * (SIDE + GAP) for step in reversed(divmod(place, COLUMNS)))
        sheet.paste(drawn.resize((SIDE, SIDE), Image.Resampling.LANCZOS), corner)
    sheet.save(out, quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
