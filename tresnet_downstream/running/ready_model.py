"""A model that is scored without a checkpoint, such as an exported file."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tresnet_downstream.errors import UserError

# Keys of a config that determine how the model computes, and how its input images are prepared.
_OF_THE_MODEL = (
    *("model", "amp", "image_size", "val_pipeline", "val_dataloader.dataset.pipeline"),
    *("test_pipeline", "test_dataloader.dataset.pipeline"),
)


@dataclass(frozen=True)
class ReadyModel:
    """A model that replaces the model of a config.

    Attributes:
        config: the value that replaces the config's ``model``.
        classes: class names, in the order of the outputs.
        pipeline: the transforms that prepare an image; empty if the model accepts images as they are.
    """

    config: dict[str, Any]
    classes: tuple[str, ...]
    pipeline: tuple[dict[str, Any], ...] = ()

    def require_untouched(self, set_here: Set[str], path: str | Path) -> None:
        """Checks that no option changes the model.

        Args:
            set_here: dotted keys of the config that options set.
            path: path of the model, for the message.

        Raises:
            UserError: if an option changes the model.
        """
        for place in sorted(set_here):
            if any(place == each or place.startswith(f"{each}.") for each in _OF_THE_MODEL):
                raise UserError(f"{place}: cannot be changed, because it is fixed in the file {path}; leave it out")
