"""The error that a user can mend, told apart from a fault of the toolkit."""


class UserError(ValueError):
    """A mistake in what the user gave: a file, an option, a label.

    The message is one line: it names the file or key, says what is wrong with it and what to do. The tools
    print it without a traceback and exit with status 2.
    """


class NonFiniteLossError(UserError):
    """A loss or a weight that is NaN or infinite."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch (on a GPU or a CPU), ONNX Runtime or OpenVINO means a lack of memory; they have no class for it."""
    signs = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)
