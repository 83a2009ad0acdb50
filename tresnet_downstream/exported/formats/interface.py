"""What a format of exported files gives: it opens a file in the library that runs it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from tresnet_downstream.errors import UserError

# Under this key an exported file says what it is: JSON, see `file.ExportedFile`.
KEY = "tresnet_downstream"
# The inputs of one or several images, by name; most have a first axis of images.
Arrays = Mapping[str, np.ndarray]


class Session(ABC):
    """An exported file in the library that runs it.

    Attributes:
        description: the text that the file keeps under :data:`KEY`; None if there is none.
        shapes: of each input, by name; 0 for a side that is free.
    """

    description: str | None
    shapes: dict[str, tuple[int, ...]]

    @abstractmethod
    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs by name."""


def required(package: str, what: str) -> Any:
    """A package of the extra ``export``.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"{what} needs {package}: pip install 'tresnet-downstream[export]' ({error})") from error


def kind_and_index(device: str) -> tuple[str, int]:
    """A device's kind and number: ``cuda:1`` is ``cuda`` and 1.

    Raises:
        UserError: if what stands after the colon is no number.
    """
    kind, _, index = device.lower().partition(":")
    if index and not index.isdecimal():
        raise UserError(f"`device` {device}: after the colon stands a number")
    return kind, int(index or 0)


def last_line(error: Exception) -> str:
    """The cause; lines before it say where in the library it was noticed."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
