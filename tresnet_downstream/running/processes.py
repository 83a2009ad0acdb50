"""Ends all processes of a training if one of them is lost, and chooses the process that prints an error."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from mmengine.dist import barrier

from tresnet_downstream.wording import worded

# A process ends itself after another one was lost in this many consecutive checks. The time is shorter than the 30 s
# after which torchrun kills the remaining processes without a message.
_CHECKS, _SECONDS_BETWEEN_CHECKS = 10, 2.0
STOPPED, ENDED = "stopped", "ended"
_ADVICE = {
    STOPPED: "",
    ENDED: "look for its error message or, if it has none, check whether the system killed it for lack of memory; ",
}
_watched = False
_needs_others = False


def watch_processes() -> None:
    """Ends this process when another process of the training on this machine has been lost for 20 seconds.

    A process is lost if it stays stopped (SIGSTOP), or if it has ended while this process is within :func:`together`.
    torch would wait for it until the timeout of the process group, which must be long because the other processes also
    wait while the first one scores. Does nothing if there is one process, or no ``/proc``.
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


@contextmanager
def together() -> Iterator[None]:
    """A context in which this process needs all the others. It ends with a barrier, except after an error.

    Outside of it, for example while the first process writes results, other processes may end.
    """
    global _needs_others
    before, _needs_others = _needs_others, True
    try:
        yield
        barrier()
    finally:
        _needs_others = before


def condition(pid: int) -> str | None:
    """``stopped`` or ``ended`` for a process of this machine; None if it runs or a debugger has stopped it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ENDED
    except OSError:
        return None
    return {"T": STOPPED, "Z": ENDED, "X": ENDED}.get(state)  # a debugger's state is t


class LostProcesses:
    """Counts the consecutive checks in which each of the other processes was lost.

    Checks are counted instead of seconds, so a training whose processes were all stopped can continue later.

    Args:
        others: process ids by rank.
    """

    def __init__(self, others: Mapping[int, int]) -> None:
        self.others = others
        self.checks = dict.fromkeys(others, 0)

    def check(self) -> str | None:
        """Checks once; returns the message about a process that has been lost for long enough, otherwise None."""
        for rank, pid in self.others.items():
            state = condition(pid)
            is_lost = state == STOPPED or (state == ENDED and _needs_others)
            self.checks[rank] = self.checks[rank] + 1 if is_lost else 0
            if state is not None and self.checks[rank] >= _CHECKS:
                seconds = int(_CHECKS * _SECONDS_BETWEEN_CHECKS)
                what = f"has been stopped for {seconds} s" if state == STOPPED else f"ended {seconds} s ago"
                return worded(
                    f"process {rank} of the training (pid {pid}) {what}, and the others cannot continue without it; "
                    f"{_ADVICE[state]}`resume` continues from the last checkpoint"
                )
        return None


def _watch(others: Mapping[int, int]) -> None:
    lost = LostProcesses(others)
    while (text := lost.check()) is None:
        time.sleep(_SECONDS_BETWEEN_CHECKS)
    if is_first_to_fail():
        print(f"error: {text}", file=sys.stderr, flush=True)
    os._exit(2)  # the main thread waits within torch, where exceptions do not reach it


def is_first_to_fail() -> bool:
    """Whether this process is the one that prints the error: the first of the training's processes that calls this.

    The processes use torchrun's store to decide. Without a store, it is rank 0.
    """
    environment = os.environ
    rank, world_size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if world_size == "1":
        return rank == "0"
    start = "/".join(environment.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "RESTART_COUNT"))
    try:
        store = dist.TCPStore(
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=5),
            wait_for_workers=False,
        )
        return bool(store.add(f"tresnet_downstream/failures/{start}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return rank == "0"
