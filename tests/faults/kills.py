"""Starts trainings in a process that forks, kills them, and reads the files that they leave."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from running.small_data import ROOT


@dataclass
class Training:
    """A training that ended or was killed.

    Args:
        status: exit status; negative for a signal.
        seconds: how long it took.
        out: standard output.
        err: standard error.
        points: the points that it passed, in order.
        batches: numbers of the batches that it trained, from 0.
        sizes: bytes of the files that it completed, by name.
    """

    status: int
    seconds: float
    out: str
    err: str
    points: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def passages(self):
        """The points with the number of the passage, from 1."""
        passed = Counter()
        for point in self.points:
            passed[point] += 1
            yield point, passed[point]


class Trainings:
    """Starts trainings, one at a time, and kills them.

    Args:
        folder: for what is recorded and for temporary files.
    """

    def __init__(self, folder):
        self.folder, self.number = Path(folder), 0
        (self.folder / "temporary").mkdir(parents=True)

    def __enter__(self):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path]),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TMPDIR": str(self.folder / "temporary"),
        }
        command = [sys.executable, str(Path(__file__).with_name("forked_trainings.py"))]
        self.errors = open(self.folder / "errors", "w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, text=True, env=environment, cwd=self.folder, **pipes)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def train(self, tool, arguments, base, **kill):
        """Trains until the end or a kill.

        Args:
            tool: name of the script.
            arguments: of its command line.
            base: the folder whose changes are points.
            **kill: ``kill``: see :class:`forked_trainings.Points`; or ``seconds`` after which it is killed.
        """
        self.number += 1
        record = self.folder / str(self.number)
        request = {"tool": tool, "arguments": list(map(str, arguments)), "base": str(base), "record": str(record)}
        print(json.dumps({**request, **kill}), file=self.process.stdin, flush=True)
        reply = self.process.stdout.readline()
        assert reply, (self.folder / "errors").read_text()
        reply = json.loads(reply)
        assert reply.pop("threads") == 1  # others would not be in what is forked
        out, err, points = (_text(record.with_suffix(f".{kind}")) for kind in ("out", "err", "points"))
        training = Training(reply["status"], reply["seconds"], out, err)
        for line in points.splitlines():
            match line.split(" ", 3):
                case ["#", "batch", number]:
                    training.batches.append(int(number))
                case ["#", "size", size, name]:
                    training.sizes[name] = int(size)
                case _:
                    training.points.append(line)
        return training


def _text(path):
    return path.read_text() if path.exists() else ""
