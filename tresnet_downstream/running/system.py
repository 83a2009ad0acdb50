"""Checks of system limits before a training's workers start, and cleanup at its end."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from types import TracebackType

from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.processes import is_first_to_fail
from tresnet_downstream.system_errors import message_of, silence_failing_logs
from tresnet_downstream.wording import worded

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LONGEST_SOCKET_PATH = 107  # in bytes, on Linux
# The folder and socket that multiprocessing creates in the folder of temporary files.
_SOCKET_NAME = "/pymp-xxxxxxxx/listener-xxxxxxxx"
# Open files of the training process, and of each worker: its pipes, and the batches in transit. With a lower limit, a
# worker cannot send its batch, and the training waits forever.
_OPEN_FILES, _FILES_OF_A_WORKER, _ENOUGH_FILES = 96, 16, 65536
# A worker starts two threads when it sends its first batch, and a failure at that time cannot be reported. The training
# itself starts threads that write logs, pin memory and watch other processes.
_THREADS, _THREADS_OF_A_WORKER = 4, 3


def prepare_workers(config: Config) -> None:
    """Checks that the system's limits allow the workers of a config's data loaders; raises the limit on open files.

    Raises:
        UserError: if a limit is too low; MMEngine would wait for the workers forever.
    """
    # A training uses both loaders, and scoring one.
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val")]
    numbers = [int(node.get("num_workers") or 0) for node in loaders if isinstance(node, Mapping)]
    num_workers = max(numbers, default=0)
    if num_workers == 0 or sys.platform == "win32":
        return
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder + _SOCKET_NAME)) > LONGEST_SOCKET_PATH:
        longest = LONGEST_SOCKET_PATH - len(_SOCKET_NAME)
        raise UserError(
            f"TMPDIR={folder}: is too long for the sockets of data loader workers: set the environment variable TMPDIR "
            f"to a folder of at most {longest} characters, such as /tmp, or give num_workers=0"
        )
    needed = _OPEN_FILES + num_workers * _FILES_OF_A_WORKER
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < _ENOUGH_FILES:
        soft = _ENOUGH_FILES if hard == unlimited else min(hard, _ENOUGH_FILES)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            raise UserError(
                f"num_workers={num_workers}: needs {needed} open files, and the limit is {soft}: raise it (ulimit -n "
                "65536), or give fewer `num_workers`"
            )
    _require_threads(num_workers, _THREADS + sum(numbers) * _THREADS_OF_A_WORKER)


def _require_threads(num_workers: int, needed: int) -> None:
    """Checks the limit on processes and threads by starting as many threads: the system counts both together."""
    is_over = threading.Event()
    threads: list[threading.Thread] = []
    try:
        for _ in range(needed):
            thread = threading.Thread(target=is_over.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError as error:
        raise UserError(
            f"num_workers={num_workers}: needs {needed} processes and threads, and the system's limit is reached after "
            f"{len(threads)}: raise it (ulimit -u, docker run --pids-limit), or give fewer `num_workers`"
        ) from error
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def close_logs(runner: Runner) -> None:
    """Closes the log file of a run, and removes the run's instances from MMEngine's global dicts."""
    for handler in [handler for handler in runner.logger.handlers if isinstance(handler, logging.FileHandler)]:
        with contextlib.suppress(OSError):  # a full disk
            handler.close()
        runner.logger.removeHandler(handler)
    for kind, instance in (
        (MMLogger, runner.logger),
        (MessageHub, runner.message_hub),
        (Visualizer, runner.visualizer),
        (type(runner.visualizer), runner.visualizer),
    ):
        instances = kind._instance_dict
        for name in [name for name, known in instances.items() if known is instance]:
            del instances[name]


def end_in_one_line() -> None:
    """Makes scripts that do not handle UserError, such as MMDetection's, end with one line and status 2."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _end
        silence_failing_logs()


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = message_of(error)
    if text is None:
        sys.__excepthook__(kind, error, trace)
    elif is_first_to_fail():
        sys.stdout.flush()  # keeps the order of stdout and stderr
        print(f"error: {worded(text)}", file=sys.stderr)
    _kill_workers()
    if text is not None:
        sys.exit(2)


def _kill_workers() -> None:
    """Kills the workers of a process that ends with an error. The error's traceback keeps the workers alive.

    The workers ignore the first SIGTERM (see `signals`), which Python sends at exit, and Python would wait forever.
    """
    workers = multiprocessing.active_children()
    if workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where a worker was killed
    for worker in workers:
        worker.kill()
        worker.join()
