"""Names of parameters and commands in messages: as in Python, or as options of the command that the user ran.

Messages of the library write a parameter in backquotes: ```batch_size` 0: give 1 or more``. If the running command has
an option for the parameter, the user reads ``--batch-size 0: give 1 or more``. Messages name commands as
``tresnet thresholds``; the user of a script reads ``tools/thresholds.py``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

# Scripts by the names of their commands.
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
    """A context in which messages use the names of a command, with the options of :func:`name_options`.

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
    """The running command, such as ``tresnet train``; None for scripts and outside of commands."""
    return _program


def name_options(options: Mapping[str, str]) -> None:
    """Sets the options of the running command, by the names of parameters."""
    _options.update(options)


def worded(message: str) -> str:
    """Replaces parameters in backquotes by the options of the running command, if it has them.

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


def first_of(names: Sequence[str]) -> str:
    """The first name, and the number of the others if there are any.

    Examples:
        >>> first_of(["stem.weight"]), first_of(["stem.weight", "stem.bias", "fc.weight"])
        ('stem.weight', 'stem.weight and 2 more')
    """
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
