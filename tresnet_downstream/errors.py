"""The error that a user can mend, told apart from a fault of the toolkit."""


class UserError(ValueError):
    """A mistake in what the user gave: a file, an option, a label.

    The message is one line: it names the file or key, says what is wrong with it and what to do. The tools
    print it without a traceback and exit with status 2.
    """


class NonFiniteLossError(UserError):
    """A loss or a weight that is NaN or infinite."""
