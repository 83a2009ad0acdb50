"""How a message names a parameter: as Python does, or as an option of the command that the user ran.

Messages of the library write a parameter in backticks: ```batch_size` 0: give 1 or more``. The user of a tool reads
``--batch-size 0: give 1 or more``, since the tool's parser says which parameters are options of it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_options: dict[str, str] = {}


@contextmanager
def of_command() -> Iterator[None]:
    """Inside, what :func:`name_options` says holds; it starts with none."""
    global _options
    before, _options = _options, {}
    try:
        yield
    finally:
        _options = before


def name_options(options: Mapping[str, str]) -> None:
    """Says which parameters, by name, are which options of the command that runs."""
    _options.update(options)


def worded(message: str) -> str:
    """The message with the parameters in backticks as options of the command that runs, if it has them.

    Examples:
        >>> with of_command():
        ...     name_options({"batch_size": "--batch-size"})
        ...     worded("`batch_size` 0: give 1 or more")
        '--batch-size 0: give 1 or more'
    """
    return re.sub("`([a-z_]+)`", lambda match: _options.get(match[1], match[0]), message)
