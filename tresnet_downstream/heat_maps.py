"""Heat maps drawn over images, for predictions and reports."""

import cv2
import numpy as np
from PIL import Image

# Brightness of the grey image where the map is 0: dark enough for the colours, bright enough to recognise the image.
_GROUND = 0.55
# Opacity of the colour where the map is 1, and the start of the colour scale where the map is 0.
_STRENGTH, _FIRST = 0.9, 0.2


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlays a heat map on a grey copy of an image, in colours from violet through orange to yellow.

    Args:
        image: the image, uint8 of shape (height, width, 3).
        heat: the map, of shape (h, w), 0 to 1; it is resized to the image.

    Returns:
        uint8 of the image's shape.

    Examples:
        >>> overlay(np.full((4, 6, 3), 200, np.uint8), np.zeros((2, 2)))[0, 0].tolist()
        [110, 110, 110]
    """
    height, width = image.shape[:2]
    stretched = Image.fromarray(np.asarray(heat, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(stretched), 0, 1)[:, :, None]
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[:, :, None]
    # The first colours of the scale are black, and would hide the image.
    levels = np.rint(255 * (_FIRST + (1 - _FIRST) * share[:, :, 0])).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.float32)
    alpha = _STRENGTH * share**0.8
    mixed = _GROUND * grey * (1 - alpha) + (0.8 * colour + 0.2 * grey) * alpha
    blended: np.ndarray = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return blended
