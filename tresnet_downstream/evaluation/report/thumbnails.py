"""Small pictures for a report; what cannot be read is counted and has a placeholder."""

import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tresnet_downstream.evaluation.outcomes import Run
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Box, Picture
from tresnet_downstream.heat_maps import overlay
from tresnet_downstream.image_paths import lies_outside
from tresnet_downstream.pictures import BadImageError, read_image

# As in the page: objects, found ones, wrong predictions, missed objects.
BOX_COLOURS = {"truth": "#ffffff", "right": "#35c79a", "wrong": "#f08a45", "missed": "#f0e442"}


def thumbnails_of(run: Run, options: Options, side: int) -> "Thumbnails":
    """Those of a run's images, from the folder that the report names or else the one where this account scored them."""
    recorded = run.image_folder if run.scored_here else None
    return Thumbnails(options.images or recorded, side, options.outside_paths)


class Thumbnails:
    """Reads images from a folder and makes them small.

    Args:
        folder: what the images' names are relative to; None shows no image, as for a run from elsewhere.
        side: the longer side in pixels.
        outside_paths: whether images may lie outside the folder.

    Attributes:
        asked: how many were asked for.
        missing: names of those that are not there or cannot be read.
        outside: names of those that lie outside the folder and are not shown.
    """

    def __init__(self, folder: str | None, side: int, outside_paths: bool = False) -> None:
        self.folder, self.side, self.outside_paths = folder, side, outside_paths
        self.outside: set[str] = set()
        self.asked: set[str] = set()
        self.missing: set[str] = set()
        self._made: dict[str, tuple[bytes | None, tuple[int, int]]] = {}

    def picture(
        self,
        image: str,
        title: str,
        value: str,
        text: str,
        boxes: Sequence[Box] = (),
        heat: NDArray[np.float32] | None = None,
    ) -> Picture:
        """The small picture with its caption, and with the map ``heat``, (side, side) from 0 to 1, over a second one.

        The small picture is made once, however often it is asked for.
        """
        self.asked.add(image)
        if image not in self._made:
            self._made[image] = self._make(image)
        jpeg, size = self._made[image]
        drawn = None if jpeg is None or heat is None else _with_heat(jpeg, heat)
        return Picture(image, jpeg, size, title, value, text, boxes, drawn)

    def note(self) -> str:
        """How many are missing; nothing if none is."""
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
            return (
                "The images are not shown: they are not files of their own, but lie together in those of the data set."
            )
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
            picture = Image.fromarray(read_image(os.path.join(self.folder, image)))
        except BadImageError:
            self.missing.add(image)
            return placeholder
        picture.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80, optimize=True)
        return file.getvalue(), picture.size


def _with_heat(jpeg: bytes, heat: NDArray[np.float32]) -> bytes:
    """A small picture with a map over it."""
    file = io.BytesIO()
    drawn = Image.fromarray(overlay(np.asarray(Image.open(io.BytesIO(jpeg))), heat))
    drawn.save(file, "JPEG", quality=85, optimize=True)
    return file.getvalue()


def with_boxes(picture: Picture) -> bytes | None:
    """The small picture as a file by itself, its boxes drawn; as it is if it has none."""
    if picture.jpeg is None or not picture.boxes:
        return picture.jpeg
    small = Image.open(io.BytesIO(picture.jpeg))
    zoom = max(1, 400 // max(small.size))  # the labels would hide a smaller picture
    drawn = small.resize((small.width * zoom, small.height * zoom))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for box in picture.boxes:
        left, top, width, height = box.corners
        corner = (left * drawn.width, top * drawn.height)
        end = ((left + width) * drawn.width, (top + height) * drawn.height)
        colour = BOX_COLOURS[box.kind]
        pen.rectangle((*corner, *end), outline=colour, width=2)
        # Predictions are named above, objects below, as in the page.
        place = (corner[0] + 2, corner[1] + 1 if box.kind in ("right", "wrong") else end[1] - 15)
        pen.rectangle(pen.textbbox(place, box.label, font), fill=colour)
        pen.text(place, box.label, fill="#101214", font=font)
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=85, optimize=True)
    return file.getvalue()
