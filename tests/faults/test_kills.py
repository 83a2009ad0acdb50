"""Killed trainings that are resumed equal uninterrupted ones; no file is lost, left over or damaged.

TRESNET_KILLS sets how many kills at points are tried, and half as many at random moments, of each kind of training.
A failure begins with its kills as a setting, ``TRESNET_KILL='[...]'``, which repeats them (``-k`` names a kind).
"""

import json
import os
import random
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from detection import small_boxes
from detection.test_steps import config_with
from faults import outcomes
from faults.kills import Training, Trainings
from mmengine.config import Config
from running.small_data import CUSTOM, RANDOM_NETWORK, make_small_data, options

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="forks processes, and reads /proc"),
]

COUNT = int(os.environ.get("TRESNET_KILLS", "6"))
CHECKPOINT_STEPS, ACCUMULATION = 2, 2
# Of a point, the first that fits.
PHASES = {
    "cache": r"\.cache",
    "pointer": "last_checkpoint",
    "removal": r"remove run/(epoch_|best)",
    "best": "best",
    "save": r"epoch_\d|save_checkpoint",
    "validation": "val",
    "step": "train_iter|train_epoch|next_batch",
    "log": "TIME",
    "end": "after_train|after_run",
    "start": "",
}


@dataclass
class Kind:
    """A kind of training, and one that was not disturbed.

    Args:
        tool: name of the script.
        arguments: of its command line, but for the folder.
        batches_at_risk: number of batches between checkpoints.
        whole: the folder in which an undisturbed one has its folders.
        training: the undisturbed one.
        resumed: one that went on after a kill.
    """

    tool: str
    arguments: list
    batches_at_risk: int
    whole: Path | None = None
    training: Training | None = None
    resumed: Training | None = None

    def command(self, base, *flags):
        return [self.arguments[0], "--work-dir", base / "run", *flags, *self.arguments[1:]]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    with Trainings(tmp_path_factory.mktemp("records") / "records") as trainings:
        yield trainings


def kind_of_training(name, folder):
    task, _, by_steps = name.partition(" ")
    changes = {"checkpoint_steps": CHECKPOINT_STEPS, **({"val_steps": 2} if by_steps else {})}
    if task == "multilabel":
        changes |= {**RANDOM_NETWORK, "batch_size": 4, "accumulation": ACCUMULATION, "keep_checkpoints": 1}
        arguments = [CUSTOM, *options(make_small_data(folder / "data"), **changes)]
        return Kind("train_multilabel", arguments, CHECKPOINT_STEPS * ACCUMULATION)
    pytest.importorskip("mmdet", reason="needs the detection set-up")
    config = folder / "detector.py"  # without bases, which take half a second to find
    Config.fromfile(config_with(folder, "dict(type='EMAHook', momentum=0.1)")).dump(config)
    changes["default_hooks__checkpoint__max_keep_ckpts"] = 1
    data = small_boxes.make_boxes(folder / "data")
    return Kind("train_detection", [config, *small_boxes.flags(data, **changes)], CHECKPOINT_STEPS)


@pytest.fixture(
    scope="module",
    params=[
        "multilabel",
        pytest.param("multilabel by steps", marks=pytest.mark.slow),
        pytest.param("detection", marks=pytest.mark.slow),
        pytest.param("detection by steps", marks=pytest.mark.slow),
    ],
)
def kind(request, trainings, tmp_path_factory):
    """A kind of training, with an undisturbed one."""
    folder = tmp_path_factory.mktemp("undisturbed")
    kind = kind_of_training(request.param, folder)
    for name in ("first", "whole"):  # the first one imports, so its time is longer
        kind.whole = folder / name
        kind.whole.mkdir()
        kind.training = trainings.train(kind.tool, kind.command(kind.whole), kind.whole)
        assert kind.training.status == 0, kind.training.err
    kills = [{"point": "after before_next_batch", "passage": 5}]
    kind.resumed = trained_with_kills(trainings, kind, folder / "resumed", kills)[-1]
    return kind


def points_by_phase(training, draw):
    """The kills that are possible in a training like this, in random order."""
    phases = {phase: [] for phase in PHASES}
    for point, passage in training.passages:
        phase = next(phase for phase, pattern in PHASES.items() if re.search(pattern, point))
        kill = {"point": point, "passage": passage}
        phases[phase].append(kill)
        if size := training.sizes.get(point.removeprefix("write partial "), 0):
            phases[phase].append({**kill, "bytes": int(draw.random() * 0.95 * size)})
    for kills in phases.values():
        draw.shuffle(kills)
    return {phase: kills for phase, kills in phases.items() if kills}


def drawn_kills(kind, draw, count):
    """Kills of every phase in turn; every third training is killed again after it was resumed."""
    phases = points_by_phase(kind.training, draw)
    of_resumed = points_by_phase(kind.resumed, draw)
    order = draw.sample(list(phases), len(phases))
    for number in range(count):
        of_phase = phases[order[number % len(order)]]
        kills = [of_phase[number // len(order) % len(of_phase)]]
        if number % 3 == 2:
            kills.append(draw.choice(draw.choice(list(of_resumed.values()))))
        yield kills


def trained_with_kills(trainings, kind, base, kills):
    """Trains with these kills, one in each start, and resumes after each; gives all of the trainings."""
    base.mkdir()
    done = []
    for kill in [*kills, {}]:
        kill = {"kill": kill} if "point" in kill else kill
        command = kind.command(base, *(["--resume"] if done else []))
        done.append(trainings.train(kind.tool, command, base, **kill))
        if done[-1].status >= 0:
            break
    return done


def faults(kind, base, done):
    """What is not as in the undisturbed training, or was lost."""
    if done[-1].status != 0:
        return [f"the resumed training ended with {done[-1].status}: {done[-1].err}"]
    found = [f"other: {name}" for name in outcomes.differences(outcomes.left_by(base), outcomes.left_by(kind.whole))]
    if further := outcomes.names_of_logs(base) - outcomes.names_of_logs(kind.whole):
        found.append(f"left in the logs: {further}")
    if len(ids := outcomes.run_ids(base)) != 1:
        found.append(f"files of several runs: {ids}")
    scores, losses, best = outcomes.printed(done)
    expected_scores, expected_losses, expected_best = outcomes.printed([kind.training])
    if (scores, best) != (expected_scores, expected_best):
        found.append(f"printed {scores} {best}, not {expected_scores} {expected_best}")
    if wrong := [where for where, values in losses.items() if values != expected_losses[where]]:
        found.append(f"printed other losses: {wrong}")
    if (logged := outcomes.logged_scores(base)) != outcomes.logged_scores(kind.whole):
        found.append(f"logged other scores: {logged}")
    if (repeated := outcomes.most_batches_repeated(done)) > kind.batches_at_risk:
        found.append(f"{repeated} batches were lost")
    found += [f"standard error: {training.err}" for training in done if training.err]
    return found


class Trials:
    """Kills trainings of a kind, and collects what went wrong."""

    def __init__(self, trainings, kind, folder):
        self.trainings, self.kind, self.folder = trainings, kind, folder
        self.number = self.killed = self.kills = self.repeated = 0
        self.failures = []

    def kill(self, kills):
        """Trains with these kills; gives whether the first one came before the training's end."""
        self.number += 1
        base = self.folder / str(self.number)
        done = trained_with_kills(self.trainings, self.kind, base, kills)
        if found := faults(self.kind, base, done):
            last = [training.points[-1:] for training in done]
            self.failures.append("\n    ".join([f"TRESNET_KILL='{json.dumps(kills)}' {last}", *found[:9]]))
        shutil.rmtree(base)
        self.kills += sum(training.status in (-signal.SIGKILL, -signal.SIGXFSZ) for training in done)
        self.repeated = max(self.repeated, outcomes.most_batches_repeated(done))
        was_killed = done[0].status < 0
        self.killed += was_killed
        return was_killed

    def end(self):
        """Prints what the kills cost, and fails if anything went wrong."""
        repeated = f"at most {self.repeated} of {self.kind.batches_at_risk} batches repeated"
        print(f"{self.killed} trainings killed, {self.kills} kills; {repeated}")
        assert not self.failures, f"{len(self.failures)} of {self.number}:\n" + "\n".join(self.failures)


@pytest.mark.slow
def test_trainings_killed_at_points_end_as_an_uninterrupted_one(trainings, kind, tmp_path):
    trials = Trials(trainings, kind, tmp_path)
    all_kills = drawn_kills(kind, random.Random(f"points of {kind.tool}"), COUNT)
    if "TRESNET_KILL" in os.environ:
        all_kills = [json.loads(os.environ["TRESNET_KILL"])]
    for kills in all_kills:
        assert trials.kill(kills), f"{kills}: the point was not passed"
    trials.end()


@pytest.mark.slow
def test_trainings_killed_at_random_moments_end_as_an_uninterrupted_one(trainings, kind, tmp_path):
    trials, draw = Trials(trainings, kind, tmp_path), random.Random(f"moments of {kind.tool}")
    longest = kind.training.seconds
    while trials.killed < COUNT // 2:
        if not trials.kill([{"seconds": draw.uniform(0, longest)}]):
            longest *= 0.9  # the machine is faster now
    trials.end()


def test_start_that_overwrites_a_run_loses_nothing_where_it_is_killed(trainings, kind, tmp_path):
    """What was there is in its folder or, whole, in the one that it was moved to; `--resume` goes on with either."""
    start = {"point": "after before_train", "passage": 1}

    def started(name, *flags, kill):
        base = tmp_path / name
        if not base.exists():
            shutil.copytree(kind.whole, base)
        return base, trainings.train(kind.tool, kind.command(base, *flags), base, kill=kill)

    _, training = started("unkilled", "--overwrite", kill=start)
    passages = list(training.passages)
    draw = random.Random(f"overwriting by {kind.tool}")
    before = files(kind.whole / "run")
    for number, (point, passage) in enumerate(draw.sample(passages, min(COUNT, len(passages)))):
        base, training = started(str(number), "--overwrite", kill={"point": point, "passage": passage})
        assert training.status == -signal.SIGKILL, point
        places = [files(base / name) for name in ("run", "run_1") if (base / name).exists()]
        assert any(before.items() <= place.items() for place in places), point
        _, resumed = started(str(number), "--resume", kill=start)
        assert (resumed.status, resumed.err) == (-signal.SIGKILL, ""), point
        shutil.rmtree(base)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_changed_weight_and_a_partial_file_fail_the_comparison(kind):
    base = kind.whole.with_name("first")
    assert not faults(kind, base, [kind.training])
    path = next(iter(base.glob("run/best*.pth")))
    content = torch.load(path, weights_only=True)
    weight = next(iter(content["state_dict"].values()))
    weight *= 1.001
    torch.save(content, path)
    (base / "run/.last_checkpoint.7.partial").touch()
    found = faults(kind, base, [kind.training])
    assert any(f"{path.name}/state_dict" in fault for fault in found)
    assert any("partial run/last_checkpoint" in fault for fault in found)
