"""Starts a tool on several processes, and separates the output of torchrun from that of the tool."""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from running.small_data import ROOT, start

# torchrun's log, and the traceback with a table of failures that it always ends with.
_LOG = re.compile(r"[IWE]\d{4} \S+ \d+ \S*torch/distributed/")
_END = 'Traceback (most recent call last):\n  File "<frozen runpy>"'


class Ended(NamedTuple):
    """What a tool on several processes left: ``err`` is without torchrun's own lines."""

    status: int
    out: str
    err: str
    time: float  # of the end, as time.time() has it


def on_processes(count, script, *arguments, timeout=150, torchrun_options=()):
    """Runs a Python file on several processes until all of them have ended."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count, *torchrun_options]
    process = start([*launcher, script, *arguments], start_new_session=True)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun ends its processes
            process.communicate()
    return Ended(process.returncode, out, _without_launcher(err), time.time())


def train_on_processes(count, config, work_dir, *arguments, tool="train_multilabel", **further):
    """Trains with a tool on several processes."""
    script = ROOT / "tools" / f"{tool}.py"
    return on_processes(count, script, config, "--work-dir", work_dir, "--launcher", "pytorch", *arguments, **further)


def _without_launcher(err):
    lines = err.partition(_END)[0].splitlines(keepends=True)
    return "".join(line for line in lines if not _LOG.match(line))


def headline(work_dir, *kind):
    """The numbers in scores.json; ``kind`` is that of a detector's scores."""
    content = json.loads((work_dir / "scores.json").read_text())
    for key in (*kind, "headline"):
        content = content[key]
    numbers = {name: value for name, value in content.items() if value is None or isinstance(value, int | float)}
    return {name: float("nan") if value is None else value for name, value in numbers.items()}


def work_as_one_of_several(work):
    """Calls ``work`` with the folder of the command line, in a script that :func:`on_processes` started."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    work(Path(sys.argv[1]))
    # None may leave while another still talks to it; and torch's threads, taken apart with the group or as an
    # interpreter ends, have aborted a process whose work was done.
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)
