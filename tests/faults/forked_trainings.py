"""A process that forks a training for each line that it reads; the training kills itself where the line says.

It has what a training imports, so a training takes a second. Each line is JSON, see :class:`kills.Trainings`. What may
be killed is a *point*: an operation that changes the folder (of these, Python's audit events tell), or a hook's call.
"""

import collections
import functools
import gc
import importlib
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from unittest import mock

import torch
from mmengine.runner import Runner
from running.small_data import tool

from tresnet_downstream.classification import annotation_cache
from tresnet_downstream.command_line import run

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Audit events of operations that change a folder: the word for each, and which argument is the path.
CHANGES = {
    "os.rename": ("rename", 1),
    "os.remove": ("remove", 0),
    "os.mkdir": ("make", 0),
    "os.rmdir": ("remove", 0),
    "os.link": ("link", 1),
    "os.symlink": ("link", 1),
    "os.truncate": ("truncate", 0),
}
PARTIAL = re.compile(r"\.(.+)\.\d+\.partial((?:\.[^.]*)?)")
TIME = re.compile(r"\d{8}_\d{6}")


def place(path, base):
    """How points name a path: within ``base``, and the same in every run; None for one elsewhere."""
    path = os.path.relpath(os.fsdecode(path), base)
    if path.startswith(".."):
        return None
    folder, name = os.path.split(TIME.sub("TIME", path))
    if name.startswith("events.out."):
        name = "events.out"
    if (match := PARTIAL.fullmatch(name)) is not None:
        return f"partial {os.path.join(folder, match[1] + match[2])}"
    return os.path.join(folder, name)


class Points:
    """Writes down each point that this process passes, and kills it at one of them.

    Args:
        base: the folder whose changes are points.
        record: file that gets a line for each point; ``# NAME VALUE`` is a note.
        kill: ``point`` and ``passage``, its number from 1; with ``bytes``, the process is killed by the kernel as it
            writes beyond that place of a file, from that point on. None kills nowhere.
    """

    def __init__(self, base, record, kill):
        self.base, self.kill = base, kill or {}
        self.record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.passed = collections.Counter()

    def watch(self):
        """Begins; there is no end to it but the process's."""
        sys.addaudithook(self._audit)
        os.fsync = self._before(os.fsync, lambda file: self.at("sync", os.readlink(f"/proc/self/fd/{file}")))
        # Its C++ opens files without an event.
        torch.save = self._before(torch.save, lambda _, file, *rest, **more: self._written_by_torch(file))
        Runner.call_hook = self._around_hooks(Runner.call_hook)

    def at(self, verb, path):
        """Passes the point before an operation on a path, if that lies in the folder."""
        if (name := place(path, self.base)) is not None:
            self.passes(f"{verb} {name}")

    def passes(self, point):
        """Passes a point, or ends there."""
        # Writers of logs have threads, whose turn is not the same in two runs.
        if self.record is None or threading.current_thread() is not threading.main_thread():
            return
        self.note(point)
        self.passed[point] += 1
        if (point, self.passed[point]) != (self.kill.get("point"), self.kill.get("passage")):
            return
        if "bytes" not in self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        self.record = None  # it is a file as well
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.kill["bytes"], resource.RLIM_INFINITY))

    def note(self, line):
        """Writes a line; what was written stays when the process is killed."""
        if self.record is not None:
            os.write(self.record, f"{line}\n".encode())

    def _audit(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING and isinstance(path, str | bytes | os.PathLike):
                self.at("write", path)
        elif event in CHANGES:
            verb, argument = CHANGES[event]
            path = arguments[argument]
            if event == "os.rename" and (name := place(path, self.base)) and os.path.isfile(arguments[0]):
                self.note(f"# size {os.path.getsize(arguments[0])} {name}")
            self.at(verb, path)
        elif event == "fcntl.flock":
            self.passes("lock")

    def _written_by_torch(self, file):
        if isinstance(file, str | os.PathLike):
            self.at("write", file)

    def _before(self, function, point):
        @functools.wraps(function)
        def wrapped(*arguments, **more):
            point(*arguments, **more)
            return function(*arguments, **more)

        return wrapped

    def _around_hooks(self, function):
        @functools.wraps(function)
        def call_hook(runner, name, **more):
            self.passes(f"before {name}")
            function(runner, name, **more)
            if name == "after_train_iter":
                self.note(f"# batch {runner.iter}")
            self.passes(f"after {name}")

        return call_hook


def train(request):
    """Trains as the command would, with standard output and error in files, and ends the process."""
    record = request["record"]
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{record}.{stream}", os.O_WRONLY | os.O_CREAT, 0o666), number)
    Points(request["base"], f"{record}.points", request.get("kill")).watch()
    status = 1
    try:
        status = run(tool(request["tool"]), request["arguments"], resumable=True)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        with open(f"{record}.modules", "w") as file:
            file.write("\n".join(list(sys.modules)))
        os._exit(status)


def forked(request):
    """Runs a training in a process of its own; gives its status, negative for a signal, and its seconds."""
    gc.freeze()  # the garbage collector would look at, and so copy, all that a training shares with this process
    begin = time.monotonic()
    process = os.fork()
    if process == 0:
        train(request)
    if "seconds" in request:
        while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
            if time.monotonic() - begin >= request["seconds"]:
                os.kill(process, signal.SIGKILL)
                ended = os.waitpid(process, 0)
                break
            time.sleep(0.002)
    else:
        ended = os.waitpid(process, 0)
    seconds = time.monotonic() - begin
    import_what_it_did(f"{request['record']}.modules")
    return {"status": os.waitstatus_to_exitcode(ended[1]), "seconds": seconds}


def import_what_it_did(file):
    """Imports the modules that a training imported, so that the next one has them."""
    if not os.path.exists(file):
        return
    with open(file) as names:
        for name in names.read().split():
            if name not in sys.modules:
                try:
                    importlib.import_module(name)
                except Exception:  # not under this name
                    continue


def main():
    torch.set_num_threads(1)
    annotation_cache.MIN_BYTES = 0  # the annotations of the tests are small
    replies = os.fdopen(os.dup(1), "w")
    # MMEngine lays out the config's text for each checkpoint: most of the time that so short a run takes.
    with mock.patch("mmengine.config.config.FormatCode", lambda text, **_: (text, True)):
        for line in sys.stdin:
            reply = forked(json.loads(line))
            print(json.dumps({**reply, "threads": threading.active_count()}), file=replies, flush=True)
    os._exit(0)  # without taking modules apart, which takes seconds


if __name__ == "__main__":
    main()
