"""A reader that one file kills. It is in a module of its own, because worker processes import it."""

import os
import signal

from tresnet_downstream.data_check.images import look_at

KILLER = "killer.jpg"


def killed_by_one(file):
    """Reads a file; one of them kills the process, as the system does where memory runs out."""
    if file[1] == KILLER:
        os.kill(os.getpid(), signal.SIGKILL)
    return look_at(file)
