"""Makes small copies of images for a report. Images that cannot be read are counted and get a placeholder."""

import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tresnet_downstream.evaluation.outcomes import Run
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Box, Card, Mark
from tresnet_downstream.heat_maps import overlay
from tresnet_downstream.image_paths import lies_outside
from tresnet_downstream.images import BadImageError, read_image

# Longer side in pixels. The page shows the image at half this size, and at this size when the reader enlarges it.
SIDE = 640
# Longer side of maps, which have a low resolution.
_MAP_SIDE = 320
# The colours of the page: objects, right predictions, wrong predictions, missed objects.
BOX_COLOURS = {"truth": "#ffffff", "right": "#35c79a", "wrong": "#f08a45", "missed": "#f0e442"}


def small_images_of(run: Run, options: Options) -> "SmallImages":
    """The small images of a run, from the report's folder or, by default, that in which this account scored them."""
    recorded = run.image_folder if run.scored_here else None
    return SmallImages(options.images or recorded, SIDE, options.outside_paths)


class SmallImages:
    """Reads images from a folder and resizes them.

    Args:
        folder: folder to which the images' names are relative; None shows no image, for example for a run from
            elsewhere.
        side: longer side in pixels.
        outside_paths: whether images may be outside the folder.

    Attributes:
        asked: names of the requested images.
        missing: names of those that do not exist or cannot be read.
        outside: names of those that are outside the folder and are not shown.
    """

    def __init__(self, folder: str | None, side: int, outside_paths: bool = False) -> None:
        self.folder, self.side, self.outside_paths = folder, side, outside_paths
        self.outside: set[str] = set()
        self.asked: set[str] = set()
        self.missing: set[str] = set()

    def card(
        self,
        image: str,
        marks: Sequence[Mark],
        classes: Sequence[int],
        text: str = "",
        boxes: Sequence[Box] = (),
        maps: Sequence[tuple[str, NDArray[np.float32] | None]] = (),
    ) -> Card:
        """The card of an image.

        Args:
            image: name of the image.
            marks: predictions and missed labels.
            classes: indices of their classes.
            text: a line below the marks.
            boxes: boxes that are drawn over the image.
            maps: pairs of a class and its map, (side, side) from 0 to 1; None for a class without a map.
        """
        self.asked.add(image)
        jpeg, size = self._make(image)
        drawn = [] if jpeg is None else [(name, _with_heat(jpeg, heat)) for name, heat in maps if heat is not None]
        return Card(image, jpeg, size, marks, classes, text, boxes, drawn)

    def note(self) -> str:
        """The number of missing images and the reason; empty if none is missing."""
        if self.folder is None and self.asked:
            return (
                "The images are not shown: another account or machine scored this run, or this account did before it "
                "had its present key (run_folders.key in the cache folder). The image folder that such a run names is "
                "not opened; set the report's `images` to it."
            )
        if self.outside:
            return (
                f"{len(self.outside)} images are not shown, since they lie outside of {self.folder}, such as "
                f"{min(self.outside)}; the report's `outside_paths` shows them."
            )
        if not self.missing:
            return ""
        if not any(os.path.splitext(name)[1] for name in self.asked):
            return "The images are not shown: they are stored together in the files of the data set."
        return (
            f"{len(self.missing)} of the {len(self.asked)} images shown here cannot be read from {self.folder}, such "
            f"as {min(self.missing)}; if they were moved, set the report's `images` to their folder."
        )

    def _make(self, image: str) -> tuple[bytes | None, tuple[int, int]]:
        placeholder = None, (self.side, self.side * 3 // 4)
        if self.folder is None:
            return placeholder
        if not self.outside_paths and lies_outside(self.folder, image):
            self.outside.add(image)
            return placeholder
        try:
            small = Image.fromarray(read_image(os.path.join(self.folder, image)))
        except BadImageError:
            self.missing.add(image)
            return placeholder
        small.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        return _jpeg(small), small.size


def _with_heat(jpeg: bytes, heat: NDArray[np.float32]) -> bytes:
    """The small image with a map over it."""
    image = Image.open(io.BytesIO(jpeg))
    image.thumbnail((_MAP_SIDE, _MAP_SIDE))
    return _jpeg(Image.fromarray(overlay(np.asarray(image), heat)))


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()


def with_boxes(card: Card) -> bytes | None:
    """The small image as a separate file, with its boxes; None if the image is missing."""
    if card.jpeg is None or not card.boxes:
        return card.jpeg
    small = Image.open(io.BytesIO(card.jpeg))
    zoom = max(1, 400 // max(small.size))  # labels would cover a smaller image
    drawn = small.resize((small.width * zoom, small.height * zoom))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for box in card.boxes:
        left, top, width, height = box.corners
        corner = (left * drawn.width, top * drawn.height)
        end = ((left + width) * drawn.width, (top + height) * drawn.height)
        colour = BOX_COLOURS[box.kind]
        pen.rectangle((*corner, *end), outline=colour, width=2)
        # Predictions are named above, objects below, as in the page.
        place = (corner[0] + 2, corner[1] + 1 if box.kind in ("right", "wrong") else end[1] - 15)
        pen.rectangle(pen.textbbox(place, box.label, font), fill=colour)
        pen.text(place, box.label, fill="#101214", font=font)
    return _jpeg(drawn)
