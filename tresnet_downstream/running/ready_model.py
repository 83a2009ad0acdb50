"""A model that is scored as it is: it needs no checkpoint, such as what runs an exported file."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tresnet_downstream.errors import UserError

# Places of a config that say how a model computes, or what pictures it gets.
_OF_THE_MODEL = (
    *("model", "amp", "image_size", "val_pipeline", "val_dataloader.dataset.pipeline"),
    *("test_pipeline", "test_dataloader.dataset.pipeline"),
)


@dataclass(frozen=True)
class ReadyModel:
    """A model that takes the place of a config's.

    Attributes:
        config: of it, in the place of the config's ``model``.
        classes: their names, in order.
        pipeline: that brings a picture to it; empty if it takes pictures as they are.
    """

    config: dict[str, Any]
    classes: tuple[str, ...]
    pipeline: tuple[dict[str, Any], ...] = ()

    def require_untouched(self, set_here: Set[str], path: str | Path) -> None:
        """Checks that no option changes the model.

        Args:
            set_here: places of the config that options set.
            path: of the model, for the message.

        Raises:
            UserError: if one does.
        """
        for place in sorted(set_here):
            if any(place == each or place.startswith(f"{each}.") for each in _OF_THE_MODEL):
                raise UserError(f"{place}: cannot be changed, since {path} is what it was exported as; leave it out")
