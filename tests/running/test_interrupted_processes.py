"""If one of two processes fails, the training ends in time, with one line and a complete checkpoint."""

import json
import re
import signal

import pytest
from running.small_data import CUSTOM, make_small_data, options
from running.test_mid_epoch import INTERRUPTING, RANDOM, config_with
from running.test_resume import assert_bit_for_bit_equal, left_over, read
from running.torchrun import train_on_processes

from tresnet_downstream.classification import EpochSampler
from tresnet_downstream.running import folders, processes

# As schedulers do: torchrun gets the signal, or each process of the job does, to which torchrun then sends it again.
INTERRUPTING_ALL = (
    INTERRUPTING
    + """
from mmengine.dist import is_main_process

@HOOKS.register_module(force=True)
class InterruptingAll(Interrupting):
    def _send(self, runner, place):
        if place not in self.place or runner.iter != self.batch:
            return
        if "each" in self.place:
            os.kill(os.getpid(), self.number)
        if is_main_process():
            os.kill(os.getppid(), self.number)
            time.sleep(0.5)  # torchrun passes it on meanwhile
"""
)
# One process gets a signal that it cannot handle; the other one takes its time to close its logs, or to validate.
LOSING = (
    INTERRUPTING
    + """
from mmengine.dist import get_rank

class Losing(Interrupting):
    rank, others_wait = 1, False

    def before_train(self, runner):
        runner.visualizer.close = lambda: time.sleep(2)

    def _send(self, runner, place):
        if place != self.place or runner.iter != self.batch:
            return
        if get_rank() == self.rank:
            with open(os.path.join(runner.work_dir, "sent"), "w") as file:
                file.write(str(time.time()))
            os.kill(os.getpid(), self.number)
        elif self.others_wait:
            time.sleep(300)

@HOOKS.register_module(force=True)
class LosingFirst(Losing):
    rank = 0

@HOOKS.register_module(force=True)
class LosingSecond(Losing):
    pass

@HOOKS.register_module(force=True)
class LosingSecondWhileFirstWaits(Losing):
    others_wait = True

@HOOKS.register_module(force=True)
class Failing(Interrupting):
    def _send(self, runner, place):
        raise ValueError("a fault of the toolkit")
"""
)


def train_on_two(data, work_dir, config=CUSTOM, flags=(), **changes):
    """Trains in epochs of 6 batches of each process and 3 steps."""
    # Of itself, torchrun does not pass SIGUSR1 on.
    passed_on = ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]
    arguments = [*flags, *options(data, **{**RANDOM, "batch_size": 2, **changes})]
    return train_on_processes(2, config, work_dir, *arguments, torchrun_options=passed_on)


def train_with(hooks, data, folder, number, batch, place, kind, **changes):
    """Trains in ``folder``/run with a hook of the source ``hooks``."""
    (folder / "interrupting.py").write_text(hooks)
    config = config_with(folder, number, batch, place, kind=kind)
    return train_on_two(data, folder / "run", config, ["--import", folder / "interrupting.py"], **changes)


def seconds_after(work_dir, ended):
    return ended.time - float((work_dir / "sent").read_text())


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("undisturbed")
    ended = train_on_two(data, work_dir)
    assert (ended.status, ended.err) == (0, "")
    return work_dir


def assert_resumes_to(undisturbed, data, work_dir):
    ended = train_on_two(data, work_dir, flags=["--resume"])
    assert (ended.status, ended.err) == (0, "")
    assert_bit_for_bit_equal(work_dir / "epoch_3.pth", undisturbed / "epoch_3.pth")
    assert read(work_dir / "best.pth")["score"] == read(undisturbed / "best.pth")["score"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place"),
    [
        (signal.SIGTERM, "step"),
        (signal.SIGTERM, "step of each"),
        (signal.SIGUSR1, "step"),
        (signal.SIGINT, "step"),
    ],
)
def test_signal_to_two_processes_ends_both_after_one_step_and_the_resumed_run_equals_the_uninterrupted_one(
    data, undisturbed, tmp_path, number, place
):
    ended = train_with(INTERRUPTING_ALL, data, tmp_path, number, 7, place, "InterruptingAll")
    assert ended.status != 0
    lines = [line for line in (ended.out + ended.err).splitlines() if "stopped by" in line]
    assert lines == [f"stopped by {number.name} after step 5; --resume continues from epoch_2_step_5.pth"]
    work_dir = tmp_path / "run"
    assert sorted(path.name for path in work_dir.glob("*.pth")) == ["best.pth", "epoch_1.pth", "epoch_2_step_5.pth"]
    assert folders.last_checkpoint(work_dir).name == "epoch_2_step_5.pth"
    assert not left_over(work_dir)
    assert_resumes_to(undisturbed, data, work_dir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "batch", "place", "num_workers", "newest"),
    [
        ("LosingSecond", 7, "step", 0, "epoch_1.pth"),
        ("LosingFirst", 12, "save", 0, "epoch_1.pth"),
        ("LosingSecond", 12, "validation", 1, "epoch_2.pth"),
    ],
)
def test_killed_process_ends_the_other_with_one_line_and_the_resumed_run_equals_the_uninterrupted_one(
    data, undisturbed, tmp_path, kind, batch, place, num_workers, newest
):
    ended = train_with(LOSING, data, tmp_path, signal.SIGKILL, batch, place, kind, num_workers=num_workers)
    work_dir = tmp_path / "run"
    assert ended.status != 0
    assert seconds_after(work_dir, ended) < 30
    assert re.fullmatch("error: another process of this training ended .*--resume continues from .*\n", ended.err)
    assert folders.last_checkpoint(work_dir).name == newest
    assert_resumes_to(undisturbed, data, work_dir)


@pytest.mark.slow
def test_killed_process_ends_the_other_within_a_long_validation(data, tmp_path):
    ended = train_with(LOSING, data, tmp_path, signal.SIGKILL, 6, "validation", "LosingSecondWhileFirstWaits")
    assert ended.status != 0
    assert seconds_after(tmp_path / "run", ended) < 30
    line = r"error: process 1 of the training \(pid \d+\) ended 20 s ago, .*--resume continues from .*\n"
    assert re.fullmatch(line, ended.err)
    assert read(tmp_path / "run/epoch_1.pth")["state_dict"]


@pytest.mark.slow
def test_stopped_process_ends_the_training_with_one_line_and_the_resumed_run_equals_the_uninterrupted_one(
    data, undisturbed, tmp_path
):
    ended = train_with(LOSING, data, tmp_path, signal.SIGSTOP, 7, "step", "LosingSecond")
    work_dir = tmp_path / "run"
    assert ended.status != 0
    assert seconds_after(work_dir, ended) < 60
    line = r"error: process 1 of the training \(pid \d+\) has been stopped for 20 s, .*--resume continues from .*\n"
    assert re.fullmatch(line, ended.err)
    assert folders.last_checkpoint(work_dir).name == "epoch_1.pth"
    assert_resumes_to(undisturbed, data, work_dir)


@pytest.mark.parametrize(
    ("state", "is_needed", "is_told"), [("T", False, True), ("Z", True, True), ("Z", False, False)]
)
def test_lost_process_is_reported_after_ten_checks_and_an_ended_one_only_if_needed(
    monkeypatch, state, is_needed, is_told
):
    states = ["R", *[state] * 9, "R", *[state] * 10]
    monkeypatch.setattr(processes.Path, "read_text", lambda path: f"7 (a name) {states.pop(0)} 1 7 7 0")
    monkeypatch.setattr(processes, "_needs_others", is_needed)
    lost = processes.LostProcesses({3: 7})
    texts = [lost.check() for _ in range(21)]
    assert texts[:20] == [None] * 20
    assert (texts[20] is not None) == is_told
    if is_told:
        assert texts[20].startswith("process 3 of the training (pid 7) ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "changes", "line"),
    [
        ([], {"train_annotations": "none.json"}, r"error: train_annotations: no file .*none\.json.*\n"),
        ([], {"max_lrr": 1}, "error: --cfg-options max_lrr: .*\n"),
        (["--resumed"], {}, r"usage: (?s:.*)\ntrain_multilabel.py: error: .*--resumed.*\n"),
    ],
)
def test_error_of_every_process_is_printed_once(data, tmp_path, flags, changes, line):
    ended = train_on_two(data, tmp_path, flags=flags, **changes)
    assert ended.status != 0
    assert re.fullmatch(line, ended.err), ended.err
    assert ended.err.count("error: ") == 1


@pytest.mark.slow
def test_image_that_one_process_cannot_read_is_reported_once(tmp_path):
    data = make_small_data(tmp_path / "data")
    names = [image["file_name"] for image in json.loads((data / "train.json").read_text())["images"]]
    order = [names[index] for _, index in EpochSampler(names, seed=0)]
    (data / "pictures" / order[3]).write_bytes(b"")  # of the first batch, and of the second process
    ended = train_on_two(data, tmp_path / "run")
    assert ended.status != 0
    assert re.fullmatch(rf"error: .*{order[3]}: unreadable image: .*on_bad_image=skip.*\n", ended.err), ended.err


@pytest.mark.slow
def test_fault_of_the_toolkit_on_every_process_is_one_traceback(data, tmp_path):
    ended = train_with(LOSING, data, tmp_path, 0, 0, "step", "Failing")
    assert ended.status != 0
    assert ended.err.count("ValueError: a fault of the toolkit") == 1
    assert ended.err.count("Traceback") == 1
