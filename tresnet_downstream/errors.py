"""UserError, the exception for mistakes that a user can correct."""

import re

LONGEST_MESSAGE = 500  # in characters
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class UserError(ValueError):
    r"""A mistake in the user's input, such as a file, an option or a label.

    The message is one line. It names the file or key, what is wrong with it, and what to do. Commands print it without
    a traceback and exit with status 2. Because messages may contain text from files, line breaks are replaced by
    spaces, control characters and characters that cannot be encoded are escaped, and the middle of a message of more
    than `LONGEST_MESSAGE` characters is left out.

    Examples:
        >>> print(UserError("labels.csv: no column 'image';\nadd one"))
        labels.csv: no column 'image'; add one
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_short(_one_line(_own_line(str(message)))))


def _own_line(message: str) -> str:
    """The message without the traceback that torch's data loader adds to errors of its workers."""
    if "\nOriginal Traceback" in message:
        return message.strip().splitlines()[-1].partition(": ")[2]
    return message


def _one_line(message: str) -> str:
    joined = " ".join(filter(None, map(str.strip, message.splitlines())))
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), joined)


def _short(message: str) -> str:
    if len(message) > LONGEST_MESSAGE:
        half = (LONGEST_MESSAGE - len(" ... ")) // 2
        message = f"{message[:half]} ... {message[-half:]}"
    if message.isascii():
        return message
    escaped = message.encode("utf-8", "backslashreplace").decode()
    return escaped if len(escaped) <= LONGEST_MESSAGE else _short(escaped)


class NonFiniteLossError(UserError):
    """A loss or a weight that is NaN or infinite."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, ONNX Runtime or OpenVINO means a lack of memory; they have no class for it."""
    signs = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)
