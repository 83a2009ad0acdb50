"""What a training needs of the system before its workers start, and what it gives back at its end."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from tresnet_downstream.errors import UserError
from tresnet_downstream.system_errors import explanation

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LONGEST_SOCKET_PATH = 107  # in bytes, on Linux
# Multiprocessing puts it in the folder of temporary files: its folder and its socket.
_SOCKET_NAME = "/pymp-xxxxxxxx/listener-xxxxxxxx"
# Files that a process has open anyway, and for each worker: its pipes, and the batches on their way. Fewer, and a
# worker that cannot send its batch lets the training wait for ever.
_OPEN_FILES, _FILES_OF_A_WORKER, _ENOUGH_FILES = 96, 16, 65536
# A worker starts two threads as it sends its first batch, where it can no longer tell why it failed. Besides the
# workers, the training starts threads that write logs, pin memory and watch other processes.
_THREADS, _THREADS_OF_A_WORKER = 4, 3
# A stopped process ends the training after this many looks; torchrun then gives it 30 s.
_LOOKS, _SECONDS_BETWEEN_LOOKS = 10, 2.0
_watched = False


def prepare_workers(config: Config) -> None:
    """Looks whether the workers that a config's data loaders start can work, and raises the limit on open files.

    Raises:
        UserError: if they cannot; MMEngine would wait for them for ever.
    """
    loaders = [config.get(f"{split}_dataloader") for split in ("train", "val", "test")]
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
    """Starts as many threads as the workers need processes and threads, for a moment: the system counts both alike."""
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


def watch_processes() -> None:
    """Ends this process when another one of the training, on this machine, stays stopped (SIGSTOP) for 20 seconds.

    torch would wait for it until the time limit of the process group, which must be long: the others also wait
    while the first process scores. Does nothing where there is one process, or no ``/proc``.
    """
    global _watched
    if _watched or not dist.is_initialized() or dist.get_world_size() == 1 or not Path("/proc/self/stat").is_file():
        return
    _watched = True
    processes: list[tuple[str, int]] = [("", 0)] * dist.get_world_size()
    dist.all_gather_object(processes, (socket.gethostname(), os.getpid()))
    others = {
        rank: pid for rank, (host, pid) in enumerate(processes) if host == socket.gethostname() and pid != os.getpid()
    }
    threading.Thread(target=_watch, args=(others,), daemon=True).start()


def _watch(others: Mapping[int, int]) -> None:
    stopped = dict.fromkeys(others, 0)
    while max(stopped.values(), default=0) < _LOOKS:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        # Counted by looks, so that a training that is stopped as a whole may go on later.
        stopped = {rank: stopped[rank] + 1 if is_stopped(pid) else 0 for rank, pid in others.items()}
    rank = max(stopped, key=lambda rank: stopped[rank])
    if is_first_to_fail():
        seconds = int(_LOOKS * _SECONDS_BETWEEN_LOOKS)
        print(
            f"error: process {rank} of the training (pid {others[rank]}) has been stopped for {seconds} s, and the "
            "others cannot go on without it; start the training again to resume it",
            file=sys.stderr,
            flush=True,
        )
    os._exit(2)  # the main thread waits within torch, where no exception reaches it


def is_stopped(pid: int) -> bool:
    """Whether a process of this machine is stopped, as by SIGSTOP; not where a debugger holds it, state ``t``."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state == "T"


def close_logs(runner: Runner) -> None:
    """Closes the log file of a run, and drops what MMEngine keeps of it by its name."""
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


def is_first_to_fail() -> bool:
    """Whether this is the process of a training that tells the error: of several, the first one that asks.

    The processes ask the store through which torchrun brought them together. Where there is none, it is rank 0.
    """
    environment = os.environ
    rank, world_size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if world_size == "1":
        return rank == "0"
    start = "/".join(environment.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "RESTART_COUNT"))
    try:
        store: Any = dist.TCPStore(
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=5),
            wait_for_workers=False,
        )
        return bool(store.add(f"tresnet_downstream/failures/{start}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return rank == "0"


def end_in_one_line() -> None:
    """Makes a script that does not handle our errors, such as MMDetection's, end with one line and status 2."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _end


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = str(error) if isinstance(error, UserError) else explanation(error)
    if text is None:
        sys.__excepthook__(kind, error, trace)
        return
    if is_first_to_fail():
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(2)
