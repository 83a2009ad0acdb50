"""The training state in a checkpoint is checked before it is restored, and runs no code."""

import shutil

import pytest
import torch
from running.small_data import refuses_to_train, train
from running.test_resume import read


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("state") / "run"
    train(data, work_dir, max_epochs=2, stop_epoch=1)
    return work_dir


@pytest.fixture
def work_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def change(work_dir, place, value):
    """Sets a value of the checkpoint; removes it if it is None."""
    content = node = read(work_dir / "epoch_1.pth")
    *keys, last = place
    for key in keys:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    torch.save(content, work_dir / "epoch_1.pth")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("meta",), "a", "meta is 'a'"),
        (("meta", "epoch"), None, "it has no meta.epoch"),
        (("meta", "iter"), -1, "meta.iter is -1"),
        (("meta", "run", "fixed"), None, "meta.run is"),
        (("meta", "dataset_meta"), [1], r"meta.dataset_meta is [1]"),
        (("message_hub", "log_scalars"), 0, "message_hub.log_scalars is 0"),
        (("optimizer",), [], "optimizer is []"),
        (("optimizer", "state", 0), 1.5, "optimizer.state.0 is 1.5"),
        (("optimizer", "state", 0, "exp_avg"), torch.ones(2), "exp_avg is a tensor of (2,)"),
        (("optimizer", "param_groups", 0, "lr"), "a", "optimizer.param_groups.0.lr is 'a'"),
        (("optimizer", "param_groups", 0, "betas"), None, "group 0 of its optimizer has no betas"),
        (("param_schedulers", 0), "a", "param_schedulers.0 is 'a'"),
        (("param_schedulers", 0, "last_epoch"), {}, "param_schedulers.0.last_epoch is {}"),
        (
            ("param_schedulers", 0, "_schedule_phases", 1, "end_momentum"),
            None,
            "_schedule_phases.1 has no end_momentum",
        ),
        (("averaged_steps",), True, "averaged_steps is True"),
    ],
)
def test_parts_of_another_kind_are_refused_by_name(data, work_dir, place, value, words):
    change(work_dir, place, value)
    flags = ["--resume"]
    refuses_to_train(data, work_dir, "epoch_1.pth: a training cannot be resumed", words, flags=flags, max_epochs=2)


def test_resuming_runs_no_config_that_a_checkpoint_holds(data, work_dir, tmp_path):
    """MMEngine would run the text under ``meta.config``."""
    change(work_dir, ("meta", "config"), f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n")
    train(data, work_dir, "--resume", max_epochs=2)
    assert not (tmp_path / "made").exists()
