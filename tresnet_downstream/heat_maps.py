"""Maps of where a network looks, drawn over pictures; in reports as in predictions."""

import cv2
import numpy as np
from PIL import Image

# Where the map is 0 the picture is grey and this dark, so that the colours stand out and the picture stays readable.
_GROUND = 0.55
# Share of the colour where the map is 1, and the place in the colour scale where it is 0.
_STRENGTH, _FIRST = 0.9, 0.2


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture in grey with the map in colour over it, from nothing over violet and orange to yellow.

    Args:
        picture: uint8 of shape (height, width, 3).
        heat: (h, w), 0 to 1; stretched over the whole picture.

    Returns:
        uint8 of the picture's shape.
    """
    height, width = picture.shape[:2]
    stretched = Image.fromarray(np.asarray(heat, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(stretched), 0, 1)[:, :, None]
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)[:, :, None]
    # The scale's first colours are black, which over a picture would look like its absence.
    levels = np.rint(255 * (_FIRST + (1 - _FIRST) * share[:, :, 0])).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.float32)
    alpha = _STRENGTH * share**0.8
    mixed = _GROUND * grey * (1 - alpha) + (0.8 * colour + 0.2 * grey) * alpha
    blended: np.ndarray = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return blended
