"""The explanation maps of a run that a report shows."""

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.outcomes import Explanations

_METHODS = {
    "Grad-CAM": "Grad-CAM: the regions that raised the score of the class",
    "attention": "the attention of the query of the class's group",
}


class MapsShown:
    """The maps of a run.

    Args:
        explanations: the explanations of the run; None if it has none.

    Attributes:
        text: a sentence on how to read the maps; empty if the run has none.
    """

    def __init__(self, explanations: Explanations | None) -> None:
        self._maps = None if explanations is None else explanations.by_pair()
        self._asked: set[tuple[str, str]] = set()
        self.text = ""
        if explanations is not None and self._maps:
            method = _METHODS.get(explanations.method, explanations.method)
            self.text = (
                f"Below an image: the regions that were relevant to a class ({method}). Brighter means more relevant."
            )

    def of(self, image: str, name: str) -> NDArray[np.float32] | None:
        """The map of a class in an image, with values from 0 to 1; None if the run has none."""
        self._asked.add((image, name))
        return None if self._maps is None else self._maps.get((image, name))

    def note(self) -> str:
        """A note on mistakes without a map, if the run has maps; empty if all mistakes have one."""
        if self._maps is None:
            return ""
        lacking = len(self._asked - self._maps.keys())
        if not lacking:
            return ""
        return (
            f"{lacking} of the {len(self._asked)} mistakes shown here have no map: scoring explains those at its own "
            "threshold, of images whose files it can read."
        )
