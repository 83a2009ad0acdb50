"""Small pictures for a report; what cannot be read is counted and has a placeholder."""

import io
import os
from collections.abc import Sequence

from PIL import Image

from tresnet_downstream.evaluation.report.parts import Box, Picture
from tresnet_downstream.pictures import BadImageError, read_image


class Thumbnails:
    """Reads images from a folder and makes them small.

    Args:
        folder: what the images' names are relative to.
        side: the longer side in pixels.

    Attributes:
        asked: how many were asked for.
        missing: names of those that are not there or cannot be read.
    """

    def __init__(self, folder: str, side: int) -> None:
        self.folder, self.side = folder, side
        self.asked: set[str] = set()
        self.missing: set[str] = set()
        self._made: dict[str, tuple[bytes | None, tuple[int, int]]] = {}

    def picture(self, image: str, title: str, value: str, text: str, boxes: Sequence[Box] = ()) -> Picture:
        """The small picture with its caption; made once, however often it is asked for."""
        self.asked.add(image)
        if image not in self._made:
            self._made[image] = self._make(image)
        jpeg, size = self._made[image]
        return Picture(image, jpeg, size, title, value, text, boxes)

    def note(self) -> str:
        """How many are missing; nothing if none is."""
        if not self.missing:
            return ""
        return (
            f"{len(self.missing)} of the {len(self.asked)} images shown here cannot be read from {self.folder}, such "
            f"as {min(self.missing)}; --images names the folder if they lie elsewhere."
        )

    def _make(self, image: str) -> tuple[bytes | None, tuple[int, int]]:
        try:
            picture = Image.fromarray(read_image(os.path.join(self.folder, image)))
        except BadImageError:
            self.missing.add(image)
            return None, (self.side, self.side * 3 // 4)
        picture.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80, optimize=True)
        return file.getvalue(), picture.size
