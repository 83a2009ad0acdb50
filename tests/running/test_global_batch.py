"""With the same global batch, the number of processes changes neither order, random draws nor scores."""

import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image
from running.small_data import CLASSES, CUSTOM, call, make_small_data, options
from running.test_resume import read
from running.torchrun import headline, on_processes, work_as_one_of_several

from tresnet_downstream.running.signals import TrainingStopped

BATCH, IMAGES = 4, 24  # 6 steps in an epoch
MANY = 1003  # an odd number, and no multiple of 4 when made even


class Recording(Hook):
    """Notes what each batch of this process holds, and ends the training after a batch."""

    def __init__(self, folder, last):
        self.folder, self.last = folder, last

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        pixels = [hashlib.md5(image.numpy().tobytes()).hexdigest() for image in data_batch["inputs"].contiguous()]
        row = {"batch": runner.iter, "samples": list(zip(data_batch["image"], pixels, strict=True))}
        with open(Path(self.folder) / f"seen_{get_world_size()}_{get_rank()}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        if runner.iter == self.last and get_rank() == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def seen(folder, processes):
    """By number of the batch, the samples of all processes in the order in which one process would take them."""
    ranks = []
    for rank in range(processes):
        lines = (folder / f"seen_{processes}_{rank}.jsonl").read_text().splitlines()
        ranks.append({row["batch"]: row["samples"] for row in map(json.loads, lines)})
    return {
        batch: [s for turn in zip(*(rank[batch] for rank in ranks), strict=True) for s in turn] for batch in ranks[0]
    }


def train(folder, work_dir, *flags, last=-1):
    """Trains on the processes that there are, until a batch if one is named; gives what was printed."""
    HOOKS.register_module(module=Recording, force=True)
    processes = get_world_size()
    config = folder / f"config_{get_rank()}.py"
    hook = f"dict(type='mmengine.Recording', folder={str(work_dir)!r}, last={last})"
    config.write_text(f"_base_ = [{CUSTOM!r}]\ncustom_hooks = [*_base_.custom_hooks, {hook}]\n")
    changes = {"model__backbone__norm": "sync", "batch_size": BATCH // processes, "max_epochs": 3}
    work_dir.mkdir(exist_ok=True)
    launcher = ["--launcher", "pytorch" if processes > 1 else "none"]
    arguments = [config, "--work-dir", work_dir, *launcher, *flags, *options(folder / "data", **changes)]
    try:
        status, out, err = call("train_multilabel", arguments)
    except TrainingStopped as stopped:
        assert last >= 0
        return str(stopped.code)
    assert (status, last, err) == (0, -1, ""), err
    return out


def score(folder, work_dir):
    """Scores the many images on the processes that there are."""
    launcher = ["--launcher", "pytorch" if get_world_size() > 1 else "none"]
    changes = {"val_annotations": "many.csv", "val_images": "many", "batch_size": 64 // get_world_size()}
    arguments = [CUSTOM, folder / "alone/best.pth", "--work-dir", work_dir, *launcher]
    status, out, err = call("test_multilabel", [*arguments, *options(folder / "data", **changes)])
    assert status == 0, err
    return out


def make_many_images(folder):
    """Writes images of 8 pixels and the CSV file of their labels."""
    draw = np.random.RandomState(0)
    (folder / "many").mkdir()
    rows = []
    for number in range(MANY):
        labels = draw.random_sample(3) < 0.4
        labels[number % 3] = True
        pixels = draw.randint(0, 256, (8, 8, 3)) // 2 + 120 * labels
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"many/{number:04}.png")
        rows.append(f"{number:04}.png,{';'.join(np.array(CLASSES)[labels])}")
    (folder / "many.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one process, and one that 2 processes begin, 1 goes on with and 4 end, each within an epoch."""
    folder = tmp_path_factory.mktemp("processes")
    make_many_images(make_small_data(folder / "data", num_train=IMAGES))
    train(folder, folder / "alone")
    for processes in (2, 1, 4):
        if processes == 1:
            (folder / "printed_1.txt").write_text(train(folder, folder / "parts", "--resume", last=7))
            score(folder, folder / "scores_1")
        else:
            ended = on_processes(processes, __file__, folder)
            assert ended.status == 0, ended.err
    return folder


@pytest.mark.slow
def test_run_that_2_1_and_4_processes_train_sees_the_samples_and_draws_of_one_process(folder):
    expected = seen(folder / "alone", 1)
    assert sorted(expected) == list(range(18))
    parts = {processes: seen(folder / "parts", processes) for processes in (2, 1, 4)}
    assert [(min(part), max(part)) for part in parts.values()] == [(0, 4), (5, 7), (8, 17)]
    for part in parts.values():
        for batch, samples in part.items():
            assert samples == expected[batch]


@pytest.mark.slow
def test_run_that_2_1_and_4_processes_train_gives_the_weights_of_one_process_but_for_rounding(folder):
    alone, parts = (read(folder / name / "epoch_3.pth")["state_dict"] for name in ("alone", "parts"))
    before = read(folder / "alone/epoch_2.pth")["state_dict"]
    for name, expected in alone.items():
        if expected.is_floating_point():
            # Sums are taken in another order: 0.05% of what the last epoch changed was seen.
            assert (parts[name] - expected).norm() <= 0.01 * (before[name] - expected).norm() + 1e-7, name
        else:
            assert torch.equal(parts[name], expected), name


@pytest.mark.slow
def test_change_of_processes_says_how_many_images_a_step_takes(folder):
    printed = (folder / "printed_4.txt").read_text()
    assert "resumed with a change: processes was 1 and is now 4" in printed
    assert "an optimiser step uses 4 images over all processes, as before" in printed


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_scores_of_1003_images_do_not_depend_on_the_number_of_processes(folder, processes):
    alone, together = folder / "scores_1", folder / f"scores_{processes}"
    images = [f"{number:04}.png" for number in range(MANY)]
    assert json.loads((alone / "images.json").read_text()) == images
    for name in ("images.json", "targets.npy"):
        assert (together / name).read_bytes() == (alone / name).read_bytes(), name
    one, other = (np.load(path / "probabilities.npy") for path in (alone, together))
    assert one.shape == (MANY, 3)
    # A batch of another size is computed with other roundings: 6e-8 was seen.
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)
    assert headline(together) == pytest.approx(headline(alone), rel=1e-6, nan_ok=True)


def work(folder):
    processes = get_world_size()
    flags, last = ([], 4) if processes == 2 else (["--resume"], -1)
    printed = train(folder, folder / "parts", *flags, last=last)
    if get_rank() == 0:
        (folder / f"printed_{processes}.txt").write_text(printed)
    score(folder, folder / f"scores_{processes}")


if __name__ == "__main__":
    work_as_one_of_several(work)
