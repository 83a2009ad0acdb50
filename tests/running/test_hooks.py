"""The weight average, the early end, the progress, and the files of a run."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from running.small_data import DIGITS, call, options, refuses_to_train, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.hooks import PlainBlocksHook, StopHook, WeightAverageHook


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("trained")
    printed = train(data, work_dir)
    return SimpleNamespace(work_dir=work_dir, printed=printed)


def averaged_values(hook, updates, values):
    """What the average of a weight, a running mean and a counter is as they take these values."""
    model = nn.BatchNorm1d(1)

    def assign(value):
        model.weight.data.fill_(value)
        model.running_mean.fill_(10 * value)
        model.num_batches_tracked.fill_(int(100 * value))

    assign(1.0)
    steps = iter(updates)
    runner = SimpleNamespace(model=model, optim_wrapper=SimpleNamespace(should_update=lambda: next(steps)))
    hook.before_train(runner)
    for value in values:
        assign(value)
        hook.after_train_iter(runner, 0)
    averaged = hook.model
    return averaged.weight.item(), averaged.running_mean.item(), averaged.num_batches_tracked.item()


def test_average_of_three_steps_is_that_by_hand():
    weight, mean, count = averaged_values(WeightAverageHook(decay=0.9), [True] * 3, [2.0, 4.0, -1.0])
    expected = ((1.0 * 0.9 + 2.0 * 0.1) * 0.9 + 4.0 * 0.1) * 0.9 - 1.0 * 0.1
    assert weight == pytest.approx(expected)
    assert mean == pytest.approx(10 * expected)
    assert count == -100


def test_warm_up_starts_with_smaller_shares_up_to_the_decay():
    weight, _, _ = averaged_values(WeightAverageHook(decay=0.24, warmup=True), [True] * 3, [2.0, 4.0, -1.0])
    first, second, third = 2 / 11, 3 / 12, 0.24  # (1 + step) / (10 + step) would be 4 / 13 at the third
    expected = ((1.0 * first + 2.0 * (1 - first)) * min(second, 0.24) + 4.0 * 0.76) * third - 1.0 * (1 - third)
    assert weight == pytest.approx(expected)


def test_average_moves_only_where_the_optimiser_made_a_step():
    hook = WeightAverageHook(decay=0.9)
    weight, _, _ = averaged_values(hook, [False, True, False, True], [7.0, 2.0, 9.0, 4.0])
    assert weight == pytest.approx((1.0 * 0.9 + 2.0 * 0.1) * 0.9 + 4.0 * 0.1)
    assert hook.steps == 2


def test_average_has_storage_of_its_own_and_no_gradients():
    hook = WeightAverageHook()
    averaged_values(hook, [True], [2.0])
    assert not hook.model.training
    assert not any(parameter.requires_grad for parameter in hook.model.parameters())


def test_stop_ends_training_at_its_epoch_and_not_before():
    loop = SimpleNamespace(stop_training=False)
    hook = StopHook(epoch=3)
    stopped = []
    for epoch in range(3):
        hook.after_train_epoch(SimpleNamespace(epoch=epoch, train_loop=loop))
        stopped.append(loop.stop_training)
    assert stopped == [False, False, True]


def test_stop_epoch_leaves_the_schedule_as_long_as_it_was(data, tmp_path):
    train(data, tmp_path, max_epochs=4, stop_epoch=1)
    checkpoint = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    assert checkpoint["meta"]["epoch"] == 1
    assert checkpoint["param_schedulers"][0]["total_steps"] == 4 * 3


def test_each_epoch_has_one_line_with_both_scores(trained):
    lines = [line for line in trained.printed.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("raw " in line and "averaged " in line and "loss per image" in line for line in lines)


def test_checkpoints_are_the_last_ones_and_the_best(trained):
    names = sorted(path.name for path in trained.work_dir.glob("*.pth"))
    assert names == ["best.pth", "epoch_1.pth", "epoch_2.pth"]
    assert (trained.work_dir / "last_checkpoint").read_text() == "epoch_2.pth"


@pytest.mark.parametrize(
    ("changes", "kept"), [({"keep_checkpoints": 1}, [3]), ({"default_hooks__checkpoint__interval": 2}, [2, 3])]
)
def test_checkpoints_are_kept_as_configured(data, tmp_path, changes, kept):
    train(data, tmp_path, max_epochs=3, **changes)
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == [f"epoch_{epoch}.pth" for epoch in kept]


def test_best_checkpoint_holds_both_weights_and_says_which_scored_better(trained):
    best = torch.load(trained.work_dir / "best.pth", weights_only=True)
    score = best["score"]
    assert best["state_dict"].keys() == best["averaged_state_dict"].keys()
    assert score["mAP"] == max(score["raw/mAP"], score["averaged/mAP"]) == score[f"{score['weights']}/mAP"]
    assert best["meta"]["dataset_meta"]["classes"] == ("disc", "square", "stripe")
    assert f"best val mAP {score['mAP']:.2f} ({score['weights']} weights, epoch {score['epoch']})" in trained.printed


@pytest.mark.parametrize("weights", ["raw", "averaged", None])
def test_scores_of_a_checkpoint_are_those_of_its_validation(data, trained, tmp_path, weights):
    path = trained.work_dir / "best.pth"
    score = torch.load(path, weights_only=True)["score"]
    flags = [] if weights is None else ["--weights", weights]
    status, printed, err = call("test_multilabel", [DIGITS, path, "--work-dir", tmp_path, *flags, *options(data)])
    assert (status, err) == (0, "")
    weights = weights or score["weights"]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["headline"]["mAP"] == pytest.approx(score[f"{weights}/mAP"], abs=1e-9)
    assert scores["headline"]["num_images"] == 11
    assert scores["run"]["weights"] == weights
    assert f"{weights} weights" in printed
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [next(iter(row.values())) for row in rows] == ["disc", "square", "stripe"]


def test_tensorboard_has_the_loss_and_both_scores(trained):
    (events,) = trained.work_dir.rglob("events.out.tfevents.*")
    scalars = EventAccumulator(str(events)).Reload()
    assert {"raw/mAP", "averaged/mAP", "lr"} <= set(scalars.Tags()["scalars"])
    assert len(scalars.Scalars("raw/mAP")) == 2


class Spoiler(Hook):
    """Sets a weight to NaN before the second epoch."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            next(runner.model.head.parameters()).data[0] = float("nan")


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(data, tmp_path):
    HOOKS.register_module(module=Spoiler, force=True)
    config = tmp_path / "spoilt.py"
    config.write_text(f"_base_ = ['{DIGITS}']\ncustom_hooks = [dict(type='ProgressHook'), dict(type='Spoiler')]\n")
    work_dir = tmp_path / "work"
    words = ("the loss is nan", "train_", ".jpg", work_dir / "epoch_1.pth", "max_lr")
    refuses_to_train(data, work_dir, *words, config=config)
    assert sorted(path.name for path in work_dir.glob("*.pth")) == ["best.pth", "epoch_1.pth"]
    for tensor in torch.load(work_dir / "epoch_1.pth", weights_only=True)["state_dict"].values():
        assert tensor.isfinite().all()


def test_learning_rate_out_of_all_bounds_writes_no_checkpoint(data, tmp_path):
    refuses_to_train(data, tmp_path / "work", "max_lr", "no checkpoint", max_lr=1e30)
    assert not list((tmp_path / "work").glob("*.pth"))


@pytest.mark.parametrize(("norm", "told"), [("inplace", 0), ("batchnorm", 1)])
def test_training_tells_once_which_blocks_keep_more_memory_and_why(data, tmp_path, norm, told):
    printed = train(data, tmp_path, model__backbone__norm=norm)
    line = (
        "note: backbone.stem and 4 more: no memory-saving implementation (same results, more memory), because "
        f"norm='{norm}'"
    )
    assert printed.count(line) == told
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert log.count(line) == told


def test_each_reason_against_the_lean_form_is_reported_with_its_blocks(capsys):
    network = TResNet(layers=(1, 1, 1, 1), width=0.25)
    for stage in (network.layer2, network.layer3):
        stage[0].conv1.register_forward_hook(lambda *_: None)
    nn.utils.parametrizations.weight_norm(network.layer4[0].conv3)
    hook, runner = PlainBlocksHook(), SimpleNamespace(model=nn.ModuleDict({"backbone": network}))
    for _ in range(2):
        hook.before_train_iter(runner)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0].startswith("note: backbone.layer2.0 and 1 more: ")
    assert told[0].endswith("conv1 has a forward hook")
    assert told[1].startswith("note: backbone.layer4.0: ")
