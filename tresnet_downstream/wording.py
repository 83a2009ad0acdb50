"""How a message names a parameter and a command: as Python does, or as the command that the user ran.

Messages of the library write a parameter in backticks: ```batch_size` 0: give 1 or more``. The user of a command reads
``--batch-size 0: give 1 or more``, since the command's parser says which parameters are options of it. They name
another command as ``tresnet thresholds``; the user of a script reads ``tools/thresholds.py``.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# The commands that have a script, and those scripts.
SCRIPTS = {
    "digits": "data/make_digits.py",
    "train": "tools/train.py",
    "score": "tools/test.py",
    "predict": "tools/predict.py",
    "report": "tools/report.py",
    "thresholds": "tools/thresholds.py",
    "calibrate": "tools/calibrate.py",
    "export": "tools/export.py",
    "weights": "tools/weights.py",
    "check": "tools/check_data.py",
    "reproduce": "tools/reproduce.py",
    "maps": "tools/check_maps.py",
    "scale": "tools/scale.py",
    "benchmark": "tools/benchmark.py",
}
_COMMAND = re.compile(rf"\btresnet ({'|'.join(SCRIPTS)})\b")

_options: dict[str, str] = {}
_program: str | None = None
_runs_script = False


@contextmanager
def of_command(program: str | None = None) -> Iterator[None]:
    """Inside, messages are those of a command; :func:`name_options` starts with none.

    Args:
        program: the command as the user typed it, such as ``tresnet train``; None for a script of ``tools/``.
    """
    global _options, _program, _runs_script
    before = _options, _program, _runs_script
    _options, _program, _runs_script = {}, program, program is None
    try:
        yield
    finally:
        _options, _program, _runs_script = before


def program() -> str | None:
    """The command that runs, such as ``tresnet train``; None for a script, and outside of commands."""
    return _program


def name_options(options: Mapping[str, str]) -> None:
    """Says which parameters, by name, are which options of the command that runs."""
    _options.update(options)


def worded(message: str) -> str:
    """The message with the parameters in backticks as options of the command that runs, if it has them.

    Examples:
        >>> with of_command():
        ...     name_options({"batch_size": "--batch-size"})
        ...     worded("`batch_size` 0: give 1 or more")
        ...     worded("write it again with tresnet thresholds")
        '--batch-size 0: give 1 or more'
        'write it again with tools/thresholds.py'
    """
    if _runs_script:
        message = _COMMAND.sub(lambda match: SCRIPTS[match[1]], message)
    return re.sub("`([a-z_]+)`", lambda match: _options.get(match[1], match[0]), message)
