"""The error that a user can mend, told apart from a fault of the toolkit."""

import re

LONGEST_MESSAGE = 500  # in characters
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class UserError(ValueError):
    """A mistake in what the user gave: a file, an option, a label.

    The message is one line: it names the file or key, says what is wrong with it and what to do. The tools
    print it without a traceback and exit with status 2. Names and texts from files may be anything: line breaks become
    spaces, control characters and characters that no encoding takes are escaped, and of a message of more than
    `LONGEST_MESSAGE` characters the middle is left out.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_short(_one_line(_own_line(str(message)))))


def _own_line(message: str) -> str:
    """The message alone, where torch's data loader raises a worker's error anew with its traceback as the text."""
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
    """Whether torch (on a GPU or a CPU), ONNX Runtime or OpenVINO means a lack of memory; they have no class for it."""
    signs = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)
