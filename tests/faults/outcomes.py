"""The files, printed lines and logs of trainings, in a form in which two trainings can be compared."""

import json
import re
from itertools import pairwise

import torch
from faults.forked_trainings import place
from running.test_resume import leaves

# What says when and how a training was started and which one it is. MMEngine's hooks count ``iter`` and ``epoch``, for
# the logs alone, in another way before the first step of a start than after a step.
OF_ONE_RUN = re.compile(
    r"run/run_id|.*\.pth/(meta/(time|run_id|experiment_name|cfg)|message_hub/runtime_info/(experiment_name|iter|epoch))"
)
LOGS = re.compile(r"run/TIME/.*")


def left_by(base):
    """The files below a folder: of checkpoints each tensor and value, of others the content; logs apart."""
    content = {}
    for path in sorted(path for path in base.rglob("*") if path.is_file()):
        name = place(path, base)
        if path.suffix == ".pth":
            content[name] = "a checkpoint"
            for key, value in leaves(torch.load(path, weights_only=True)).items():
                content[f"{name}{key}"] = value.replace(str(base), "BASE") if isinstance(value, str) else value
        elif not LOGS.fullmatch(name):
            content[name] = path.read_bytes().replace(str(base).encode(), b"BASE")
    return {name: value for name, value in content.items() if not OF_ONE_RUN.fullmatch(name)}


def names_of_logs(base):
    """The names of the log files of all starts."""
    return {name for path in base.rglob("*") if path.is_file() and LOGS.fullmatch(name := place(path, base))}


def run_ids(base):
    """Which runs the files of a folder say that they are of."""
    checkpoints = [torch.load(path, weights_only=True)["meta"] for path in base.rglob("*.pth")]
    return {(base / "run/run_id").read_text().strip(), *(meta["run_id"] for meta in checkpoints)}


def printed(trainings):
    """The different scores printed for each epoch or step, the different losses, and the best score at the end."""
    scores, losses = {}, {}
    for line in "".join(training.out for training in trainings).splitlines():
        if match := re.match(r"((?:epoch|step) \d+/\d+.*?): (loss.*?, )?(val .*)", line):
            parts = [part for part in match[3].split(", ") if not re.search(r" s$|images/s| left$", part)]
            scores.setdefault(match[1], set()).add(", ".join(parts))
            if match[2]:
                losses.setdefault(match[1], set()).add(match[2])
    best = [line.partition(", in ")[0] for line in trainings[-1].out.splitlines() if line.startswith("best val")]
    return scores, losses, best


def logged_scores(base):
    """The different scores of each validation in ``scalars.json``; a killed training may have cut the last line."""
    scores = {}
    for path in sorted(base.rglob("scalars.json")):
        for line in path.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            row = json.loads(line)
            values = {key: value for key, value in row.items() if "mAP" in key}
            if values:
                scores.setdefault(row["step"], set()).add(json.dumps(values))
    return scores


def differences(one, other):
    """The files and values of two folders that one lacks, or that are not the same."""
    names = sorted(one.keys() ^ other.keys())
    names = [name for name in names if not any(name.startswith(f"{file}/") for file in names)]
    for name in sorted(one.keys() & other.keys()):
        value, same = one[name], False
        if isinstance(value, torch.Tensor):
            same = isinstance(other[name], torch.Tensor) and torch.equal(value, other[name])
        else:
            same = value == other[name]
        names += [] if same else [name]
    return names


def most_batches_repeated(trainings):
    """How many batches, at most, a start repeated of what the trainings before it had trained."""
    trained = [training.batches for training in trainings if training.batches]
    return max([before[-1] + 1 - after[0] for before, after in pairwise(trained)], default=0)
