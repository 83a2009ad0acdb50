"""The interface of a format of exported files: a session of the library that runs a file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

import numpy as np

from tresnet_downstream.errors import UserError

# The key of the description in an exported file, which is JSON; see `file.ExportedFile`.
KEY = "tresnet_downstream"
# The inputs by name. Most have images as the first axis.
Arrays = Mapping[str, np.ndarray]


class Session(ABC):
    """An exported file in the library that runs it.

    Attributes:
        description: the text under :data:`KEY` in the file; None if there is none.
        shapes: from the names of the inputs to their shapes; 0 for a dynamic dimension.
    """

    description: str | None
    shapes: dict[str, tuple[int, ...]]

    @abstractmethod
    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs the model and returns its outputs by name."""


def required(package: str, what: str) -> ModuleType:
    """Imports a package of the extra ``export``.

    Args:
        package: name of the package.
        what: what needs the package, for messages.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"{what} needs {package}: pip install 'tresnet-downstream[export]' ({error})") from error


def kind_and_index(device: str) -> tuple[str, int]:
    """The kind and the number of a device.

    Raises:
        UserError: if the text after the colon is not a number.

    Examples:
        >>> kind_and_index("cuda:1")
        ('cuda', 1)
    """
    kind, _, index = device.lower().partition(":")
    if index and not index.isdecimal():
        raise UserError(f"`device` {device}: give a number after the colon")
    return kind, int(index or 0)


def last_line(error: Exception) -> str:
    """The last line of an error, which is the cause. The lines before it are positions in the library."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
