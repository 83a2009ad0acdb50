"""The results of several processes equal those of one process with the whole batch."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope
from mmengine.runner import IterBasedTrainLoop
from running.small_data import DIGITS, call, make_small_data, options, train
from running.torchrun import on_processes, work_as_one_of_several
from torch.nn.parallel import DistributedDataParallel

from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.registry import MODELS
from tresnet_downstream.running.optimisation import RecipeOptimWrapper
from tresnet_downstream.running.validation import LastValidationHook

# 3 steps in each of 2 epochs.
BY_STEPS = {"model__backbone__norm": "sync", "val_steps": 2, "accumulation": 1}


def step_of_the_classifier(reduction):
    """Gradients and buffers after one batch of 8, of which each process takes its share."""
    torch.manual_seed(0)
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    init_default_scope("tresnet_downstream")
    loss = {"type": "AsymmetricLoss", "gamma_neg": 4, "gamma_pos": 0, "clip": 0.05, "reduction": reduction}
    backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25, "norm": "sync"}
    head = {"type": "LinearHead", "num_classes": 3}
    model = MODELS.build({"type": "ImageClassifier", "backbone": backbone, "head": head, "loss": loss}).double().train()
    for norm in model.backbone.norms():  # those that start at 0 would hide their blocks
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    images, targets = torch.rand(8, 3, 32, 32, dtype=torch.float64), torch.randint(0, 2, (8, 3), dtype=torch.int8)
    wrapper = RecipeOptimWrapper(torch.optim.Adam(model.parameters()), reduction=reduction)
    wrapper.step = wrapper.zero_grad = lambda: None
    network = DistributedDataParallel(model, broadcast_buffers=False) if dist.is_initialized() else model
    losses = network(images[rank::world_size], targets[rank::world_size], mode="loss")
    wrapper.update_params(losses["loss"])
    return {name: p.grad for name, p in model.named_parameters()} | dict(model.named_buffers())


def step_of_the_norm():
    """Output, gradients and statistics of a norm by itself; processes take 3 and 5 pictures of 8."""
    torch.manual_seed(0)
    norm = ActivatedBatchNorm(4, slope=0.01, norm="sync").double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x, upstream = torch.randn(2, 8, 4, 5, 5, dtype=torch.float64)
    share = slice(0, 8) if not dist.is_initialized() else (slice(0, 3), slice(3, 8))[dist.get_rank()]
    x = x[share].clone().requires_grad_()
    y = norm(x)
    result = {"y": y.detach().clone()}
    y.backward(upstream[share])
    result |= {"x.grad": x.grad}
    sums = {"weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
    if dist.is_initialized():
        for gradient in sums.values():
            dist.all_reduce(gradient)
    return result | sums | {name: buffer.clone() for name, buffer in norm.named_buffers()}


def statistics_of_one_pixel():
    """Buffers of a norm after a batch of two pictures of one pixel, of which each process takes one."""
    torch.manual_seed(0)
    norm = ActivatedBatchNorm(4, slope=0.01, norm="sync")
    x = torch.randn(2, 4, 1, 1)
    norm(x if not dist.is_initialized() else x[dist.get_rank()][None])
    return dict(norm.named_buffers())


def statistics_in_a_validation():
    """The buffers that a process scores with, from its own in a training."""
    model = torch.nn.BatchNorm1d(2)
    model.running_mean += 1 + (dist.get_rank() if dist.is_initialized() else 0)
    runner = SimpleNamespace(_train_loop=object.__new__(IterBasedTrainLoop), model=model)
    LastValidationHook().before_val_epoch(runner)
    return dict(model.named_buffers())


def one_step_of_each():
    return {
        "validation": statistics_in_a_validation(),
        "sum": step_of_the_classifier("sum"),
        "mean": step_of_the_classifier("mean"),
        "norm": step_of_the_norm(),
        "pixel": statistics_of_one_pixel(),
    }


def train_and_score(folder):
    """Trains and scores with the tools, into folders new and used; gives what each printed."""
    common = ["--launcher", "pytorch", *options(folder / "data", model__backbone__norm="sync")]
    work, alone, spoilt = (["--work-dir", folder / name] for name in ("work", "alone", "spoilt_work"))
    broken = ["--launcher", "pytorch", *options(folder / "spoilt", model__backbone__norm="sync", on_bad_image="skip")]
    best = folder / "work/best.pth"
    halves = options(folder / "data", **{**BY_STEPS, "batch_size": 4})
    return {
        "steps": call("train_multilabel", [DIGITS, "--work-dir", folder / "steps", "--launcher", "pytorch", *halves]),
        "train": call("train_multilabel", [DIGITS, *work, *common]),
        "again": call("train_multilabel", [DIGITS, *work, "--overwrite", *common]),
        "resume": call("train_multilabel", [DIGITS, *alone, "--resume", *common]),
        "test": call("test_multilabel", [DIGITS, best, *work, *common]),
        "spoilt": call("test_multilabel", [DIGITS, best, *spoilt, *broken]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes, started by ``torchrun``, left what this file's last lines do."""
    folder = tmp_path_factory.mktemp("two_processes")
    make_small_data(folder / "data")  # 11 pictures to score: 6 for each process, one of them padding
    train(folder / "data", folder / "alone", stop_epoch=1, model__backbone__norm="sync")
    train(folder / "data", folder / "steps_alone", **BY_STEPS)
    spoilt = make_small_data(folder / "spoilt")
    for number in (0, 7, 10):
        (spoilt / f"pictures/val_{number:02}.jpg").write_bytes(b"")
    ended = on_processes(2, __file__, folder, timeout=180)
    assert ended.status == 0, ended.err
    return folder


@pytest.fixture(scope="module")
def steps(folder):
    """The results of one process, and of each of two."""
    return one_step_of_each(), [torch.load(folder / f"steps_{rank}.pth", weights_only=True) for rank in range(2)]


def assert_close(ours, expected, name):
    difference = (ours.double() - expected.double()).norm()
    assert difference <= 1e-8 * expected.double().norm() + 1e-14, name


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_two_processes_with_synchronous_norms_give_the_step_of_one(steps, reduction):
    alone, together = steps
    for rank in range(2):
        assert together[rank][reduction].keys() == alone[reduction].keys()
        for name, expected in alone[reduction].items():
            assert_close(together[rank][reduction][name], expected, name)


@pytest.mark.slow
def test_two_processes_validate_any_model_with_the_running_statistics_of_the_first(steps):
    alone, together = steps
    for part in together:
        assert torch.equal(part["validation"]["running_mean"], alone["validation"]["running_mean"])


@pytest.mark.slow
def test_synchronous_norm_takes_unequal_shares_of_a_batch(steps):
    alone, together = steps[0]["norm"], [part["norm"] for part in steps[1]]
    assert [len(part["y"]) for part in together] == [3, 5]
    for name, expected in alone.items():
        if name in ("y", "x.grad"):
            assert_close(torch.cat([part[name] for part in together]), expected, name)
        else:
            for part in together:
                assert_close(part[name], expected, name)


@pytest.mark.slow
def test_synchronous_norm_takes_one_pixel_of_each_process(steps):
    alone, together = steps
    for part in together:
        for name, expected in alone["pixel"].items():
            torch.testing.assert_close(part["pixel"][name], expected)


@pytest.mark.slow
def test_training_on_two_processes_writes_one_set_of_files_and_scores_every_picture(folder):
    first, second = (json.loads((folder / f"tools_{rank}.json").read_text()) for rank in range(2))
    assert {status for status, _, _ in (*first.values(), *second.values())} == {0}
    lines = [line.split(":")[0] for line in first["train"][1].splitlines() if line.startswith("epoch")]
    assert lines == ["epoch 1/2", "epoch 2/2"]
    assert "best val mAP" in first["train"][1]
    assert "images 11" in first["test"][1]
    assert second["train"][1] == second["test"][1] == ""

    work_dir = folder / "work"
    assert sorted(path.name for path in work_dir.glob("*.pth")) == ["best.pth", "epoch_1.pth", "epoch_2.pth"]
    score = torch.load(work_dir / "best.pth", weights_only=True)["score"]
    headline = json.loads((work_dir / "scores.json").read_text())["headline"]
    assert headline["num_images"] == 11
    assert headline["mAP"] == pytest.approx(score["mAP"], abs=1e-6)
    images = json.loads((work_dir / "images.json").read_text())
    assert images == sorted(images)  # none twice, as the padding of shares has them
    assert len(images) == 11


@pytest.mark.slow
def test_two_processes_overwrite_no_run_and_resume_that_of_one(folder):
    first, second = (json.loads((folder / f"tools_{rank}.json").read_text()) for rank in range(2))
    assert f"was renamed to {folder / 'work_1'}" in first["again"][1]
    assert (folder / "work_1/epoch_2.pth").exists()
    assert "resumed with a change: processes was 1 and is now 2" in first["resume"][1]
    assert second["again"][1] == second["resume"][1] == ""
    checkpoint = torch.load(folder / "alone/epoch_2.pth", weights_only=True)
    assert checkpoint["meta"]["iter"] == 4  # two epochs of 24 pictures in batches of 16
    assert checkpoint["param_schedulers"][0]["last_epoch"] == 4


@pytest.mark.slow
def test_two_processes_validate_at_the_steps_of_one_with_its_loss_and_scores(folder):
    first, second = (json.loads((folder / f"tools_{rank}.json").read_text())["steps"] for rank in range(2))
    assert (first[0], second[0], second[1]) == (0, 0, "")
    places = [line.partition(":")[0] for line in first[1].splitlines() if line.startswith("step")]
    assert places == ["step 2/6 (epoch 1/2)", "step 4/6 (epoch 2/2)", "step 6/6 (epoch 2/2)"]
    together, alone = ([row for row in rows(folder / name) if "raw/mAP" in row] for name in ("steps", "steps_alone"))
    for key in ("step", "epoch", "mean_loss"):
        assert [row[key] for row in together] == pytest.approx([row[key] for row in alone], rel=1e-4)
    # The means are over the images of both processes: those of one process differ.
    assert together[0]["raw/mAP"] == pytest.approx(alone[0]["raw/mAP"], abs=0.01)


@pytest.mark.slow
def test_losses_in_the_log_of_two_processes_are_means_over_both(folder):
    together, alone = ([row for row in rows(folder / name) if "lr" in row] for name in ("steps", "steps_alone"))
    assert len(together) == len(alone) == 2
    for ours, expected in zip(together, alone, strict=True):
        assert ours["loss_per_image"] == pytest.approx(expected["loss_per_image"], rel=1e-4)
        assert ours["loss"] == pytest.approx(expected["loss"] / 2, rel=1e-4)  # a sum, over half of the images


def rows(work_dir):
    """What a training wrote for TensorBoard, as JSON."""
    (file,) = work_dir.rglob("scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_leave_out_the_pictures_that_cannot_be_read(folder):
    first, second = (json.loads((folder / f"tools_{rank}.json").read_text())["spoilt"] for rank in range(2))
    assert "3 of 11 images cannot be read and are not scored" in first[1]
    assert second[1] == ""
    kept = [number for number in range(11) if number not in (0, 7, 10)]
    images = json.loads((folder / "spoilt_work/images.json").read_text())
    assert images == [f"val_{number:02}.jpg" for number in kept]
    assert list(json.loads((folder / "spoilt_work/run.json").read_text())["about"]["unreadable"]) == [
        f"val_{number:02}.jpg" for number in (0, 7, 10)
    ]
    whole, part = (np.load(folder / work / "probabilities.npy") for work in ("work", "spoilt_work"))
    np.testing.assert_allclose(part, whole[kept], atol=1e-5)


def work(folder):
    torch.save(one_step_of_each(), folder / f"steps_{dist.get_rank()}.pth")
    (folder / f"tools_{dist.get_rank()}.json").write_text(json.dumps(train_and_score(folder)))


if __name__ == "__main__":
    work_as_one_of_several(work)
