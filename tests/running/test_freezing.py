"""Frozen parts get no step, decay, momentum or statistics, also in resumed trainings and on two processes."""

import pytest
import torch
from running.recorded import STEPS, interrupting, two_lines
from running.small_data import options, refuses_to_train, train
from running.test_resume import assert_bit_for_bit_equal, read
from running.torchrun import train_on_processes

from tresnet_downstream.running.signals import TrainingStopped

FREEZE = "freeze = dict(backbone=2)"


def parts(state, prefix):
    return {name: tensor for name, tensor in state.items() if name.startswith(prefix)}


def are_equal(one, other):
    assert one.keys() == other.keys()
    assert one
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def frozen_for_two_epochs(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    printed = train(data, folder / "run", config=two_lines(folder, FREEZE), max_epochs=3, keep_checkpoints=3)
    return folder / "run", printed


def test_a_part_stays_as_it_is_while_it_is_frozen_with_its_statistics_and_average(frozen_for_two_epochs):
    work_dir, printed = frozen_for_two_epochs
    assert "frozen: backbone (epoch 1 to 2)" in printed
    assert "trained from epoch 3: backbone" in printed
    first, second, third = (read(work_dir / f"epoch_{n}.pth") for n in (1, 2, 3))
    for weights in ("state_dict", "averaged_state_dict"):
        assert are_equal(parts(first[weights], "backbone."), parts(second[weights], "backbone."))
        assert not are_equal(parts(second[weights], "backbone."), parts(third[weights], "backbone."))
        assert not are_equal(parts(first[weights], "head."), parts(second[weights], "head."))
    frozen = parts(first["state_dict"], "backbone.")
    assert are_equal(frozen, parts(first["averaged_state_dict"], "backbone."))
    # The two of the head, and all once the backbone is trained.
    assert len(first["optimizer"]["state"]) == len(second["optimizer"]["state"]) == 2
    assert len(third["optimizer"]["state"]) > 20
    steps = [int(state["step"]) for state in third["optimizer"]["state"].values()]
    assert sorted(set(steps)) == [3, 9]


@pytest.mark.parametrize(("stop", "epoch"), [({"stop_epoch": 1}, 1), ({"stop_epoch": 2}, 2)])
def test_run_resumed_in_or_after_the_frozen_phase_equals_the_uninterrupted_one(
    data, frozen_for_two_epochs, tmp_path, stop, epoch
):
    config = two_lines(tmp_path, FREEZE)
    train(data, tmp_path / "run", config=config, max_epochs=3, keep_checkpoints=3, **stop)
    printed = train(data, tmp_path / "run", "--resume", config=config, max_epochs=3, keep_checkpoints=3)
    assert ("frozen: backbone" in printed) == (epoch == 1)
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", frozen_for_two_epochs[0] / "epoch_3.pth")


def test_run_resumed_within_a_frozen_epoch_equals_the_uninterrupted_one(data, frozen_for_two_epochs, tmp_path):
    config = interrupting(tmp_path, 4, "step", FREEZE)
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config, max_epochs=3, keep_checkpoints=3)
    assert (tmp_path / "run/last_checkpoint").read_text().startswith("epoch_2_step_")
    config = two_lines(tmp_path, FREEZE)
    train(data, tmp_path / "run", "--resume", config=config, max_epochs=3, keep_checkpoints=3)
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", frozen_for_two_epochs[0] / "epoch_3.pth")


def recorded(data, folder, line, **changes):
    STEPS.clear()
    train(data, folder / "run", config=two_lines(folder, line, record=True), **changes)
    return list(STEPS)


def test_parts_within_parts_have_spans_of_their_own(data, tmp_path):
    line = "freeze = {'backbone': 'always', 'backbone.layer4': 1, 'backbone.layer3.0.conv1.weight': 1}"
    first, second = recorded(data, tmp_path, line, max_epochs=2)[2::3]
    assert all(name.startswith("head.") for name in first["trained"])
    assert first["state"] == first["trained"]
    expected = ("head.", "backbone.layer4.", "backbone.layer3.0.conv1.weight")
    assert all(name.startswith(expected) for name in second["trained"])
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in second["trained"]} >= {"backbone.layer4"}
    assert {name for name in first["training"] if name.startswith("backbone")} == set()
    of_backbone = {name for name in second["training"] if name.startswith("backbone")}
    assert of_backbone
    assert all(name.startswith("backbone.layer4") for name in of_backbone)


def test_what_the_backbone_freezes_itself_stays_frozen(data, tmp_path):
    rows = recorded(data, tmp_path, "freeze = dict(backbone=1)", max_epochs=2, **{"model.backbone.frozen_stages": 1})
    trained = {name for name in rows[-1]["trained"] if name.startswith("backbone.")}
    assert trained
    assert not {name for name in trained if name.startswith(("backbone.stem.", "backbone.layer1."))}
    assert not {name for name in rows[-1]["training"] if name.startswith(("backbone.stem", "backbone.layer1"))}


def test_validation_by_steps_leaves_frozen_parts_in_evaluation_mode(data, tmp_path):
    rows = recorded(data, tmp_path, "freeze = dict(backbone=1)", max_epochs=1, val_steps=1)
    assert len(rows) == 3
    assert all(not any(name.startswith("backbone") for name in row["training"]) for row in rows)


def test_statistics_of_frozen_parts_move_if_the_config_says_so(data, tmp_path):
    line = "freeze = dict(backbone='always'); freeze_statistics = False"
    rows = recorded(data, tmp_path, line, max_epochs=1)
    assert "backbone.stem.norm" in rows[0]["training"]
    assert all(name.startswith("head.") for name in rows[-1]["trained"])


def test_checkpointed_blocks_give_the_same_run(data, frozen_for_two_epochs, tmp_path):
    config = two_lines(tmp_path, FREEZE)
    changes = {"model.backbone.with_cp": True, "max_epochs": 3, "keep_checkpoints": 3}
    train(data, tmp_path / "run", config=config, **changes)
    one, other = (read(folder / "epoch_3.pth")["state_dict"] for folder in (tmp_path / "run", frozen_for_two_epochs[0]))
    for name, tensor in one.items():
        assert torch.allclose(tensor.double(), other[name].double(), rtol=1e-3, atol=1e-5), name


def test_a_span_that_changes_when_a_run_is_resumed_is_reported(data, tmp_path):
    train(data, tmp_path / "run", config=two_lines(tmp_path, FREEZE), stop_epoch=1)
    printed = train(data, tmp_path / "run", "--resume")
    assert "resumed with a change: freeze was {'backbone': 2} and is now None" in printed


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("freeze = dict(backbone=0)", ("freeze: backbone=0", "at least 1", "'always'")),
        ("freeze = dict(backbone='allways')", ("'allways'", "'always'")),
        ("freeze = dict(neck=1)", ("freeze", "'neck'", "backbone, head")),
        ("freeze = dict(backbone=1, head=1)", ("no weight is left to train in epoch 1",)),
        ("freeze_statistics = 1", ("freeze_statistics=1", "True or False")),
    ],
)
def test_settings_that_cannot_be_followed_end_in_one_line(data, tmp_path, line, words):
    refuses_to_train(data, tmp_path / "run", *words, config=two_lines(tmp_path, line))


@pytest.mark.slow
def test_two_processes_freeze_and_train_as_one_does(data, tmp_path):
    """Gradients of what is trained later are exchanged too: a wrapper of before would leave them as each has them."""
    changes = {"max_epochs": 2, "model__backbone__norm": "sync"}
    config = two_lines(tmp_path, "freeze = dict(backbone=1)")
    train(data, tmp_path / "one", config=config, **changes)
    ended = train_on_processes(2, config, tmp_path / "two", *options(data, **{**changes, "batch_size": 4}))
    assert ended.status == 0, ended.err
    one, two = (read(tmp_path / name / "epoch_2.pth")["state_dict"] for name in ("one", "two"))
    for name, tensor in one.items():
        assert torch.allclose(tensor.double(), two[name].double(), rtol=1e-2, atol=2e-4), name
