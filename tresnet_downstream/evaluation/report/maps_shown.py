"""The maps of a run's mistakes, as a report asks for them, and what it says of them."""

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.outcomes import Explanations

_TEXTS = {
    "Grad-CAM": "Grad-CAM, what spoke for the class",
    "attention": "the attention of the query of the class's group",
}


class MapsShown:
    """The maps of a run.

    Args:
        explanations: of the run; None if it has none.

    Attributes:
        text: how to read the maps, to follow a gallery's text; empty if the run has none.
    """

    def __init__(self, explanations: Explanations | None) -> None:
        self._maps = None if explanations is None else explanations.by_pair()
        self._asked: set[tuple[str, str]] = set()
        self.text = ""
        if explanations is not None:
            method = _TEXTS.get(explanations.method, explanations.method)
            self.text = f" Beside each picture: where the network looked for the class ({method}), bright where most."

    def of(self, image: str, name: str) -> NDArray[np.float32] | None:
        """The map of a class in an image, 0 to 1; None if the run has none."""
        self._asked.add((image, name))
        return None if self._maps is None else self._maps.get((image, name))

    def note(self) -> str:
        """How many mistakes have no map in a run that has some; nothing if all have."""
        if self._maps is None:
            return ""
        lacking = len(self._asked - self._maps.keys())
        if not lacking:
            return ""
        return (
            f"{lacking} of the {len(self._asked)} mistakes shown here have no map: scoring explains those at its own "
            "threshold, of images whose files it can read."
        )
