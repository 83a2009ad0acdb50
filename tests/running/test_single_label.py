"""Single-label trainings: steps equal a plain loop with timm, resuming, and errors."""

import copy
import importlib
import json
import random
import shutil

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from running.small_data import DIGITS, ROOT, call, refused
from running.small_folders import FOLDERS, make_class_folders, options, train
from torch.utils.data import Dataset

from tresnet_downstream import load_model
from tresnet_downstream.classification.training import train_classifier
from tresnet_downstream.evaluation import read_run
from tresnet_downstream.registry import DATASETS, HOOKS, MODELS
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.hooks import weight_average

timm = pytest.importorskip("timm", reason="needs the extra timm")
for part in ("data", "loss", "optim", "scheduler", "utils"):
    importlib.import_module(f"timm.{part}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_class_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """The work dir of a training, and what was printed."""
    work_dir = tmp_path_factory.mktemp("trained")
    return work_dir, train(folders, work_dir)


class Batches(Dataset):
    """Four batches of 4 in each epoch, float64, with class indices."""

    def __init__(self, classes=None):
        self.classes = ("a", "b", "c", "d", "e")
        self.metainfo = {"classes": self.classes}

    def __len__(self):
        return 16

    def __getitem__(self, key):
        epoch, index = key
        draw = np.random.RandomState(100 * epoch + index)
        image = torch.tensor(draw.random_sample((3, 64, 64))) * 255  # the preprocessor divides by 255
        return {"inputs": image, "targets": int(draw.randint(5)), "image": str(index), "skipped": 0}


class Record(Hook):
    """Sets the first weights and writes down loss, rate and norms of each step."""

    priority = "LOWEST"
    weights, log = None, None

    def before_run(self, runner):
        runner.model.load_state_dict(self.weights)

    def before_train_iter(self, runner, *_, **__):
        self.log.append({"lr": runner.optim_wrapper.optimizer.param_groups[0]["lr"]})

    def after_train_iter(self, runner, *_, outputs, **__):
        self.log[-1].update(
            {
                "loss": outputs["loss"].item(),
                "weights": norm(runner.model.parameters()),
                "average": norm(weight_average(runner).parameters()),
            }
        )


def norm(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).norm().item()


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


RECIPES = {
    "ImageNet": {
        "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 2e-5},
        "theirs": {"opt": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 2e-5},
        "mixup": {"mixup_alpha": 0.2},
        "loss": {"type": "CrossEntropy", "label_smoothing": 0.1},
        "their_loss": timm.loss.SoftTargetCrossEntropy,
        "smoothing": 0.1,
        "clip": None,
    },
    "ResNet strikes back": {
        "optimizer": {"type": "Lamb", "lr": 5e-3, "weight_decay": 0.02},
        "theirs": {"opt": "lamb", "lr": 5e-3, "weight_decay": 0.02},
        "mixup": {"mixup_alpha": 0.1, "cutmix_alpha": 1.0},
        "loss": {"type": "BinaryCrossEntropySingleLabel", "target_threshold": 0.2},
        "their_loss": lambda: timm.loss.BinaryCrossEntropy(smoothing=0.0, target_threshold=0.2),
        "smoothing": 0.0,
        "clip": 1.0,
    },
}


@pytest.mark.slow
@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("name", RECIPES)
def test_twenty_steps_equal_a_plain_loop_on_timms_optimiser_schedule_mixup_loss_and_average(tmp_path, name):
    recipe = RECIPES[name]
    config = load_config(
        FOLDERS,
        [
            *("batch_size=4", "num_workers=0", "max_epochs=5", "average_decay=0.9", "average_warmup=False"),
            *("model.backbone.layers=(1,1,1,1)", "model.backbone.width=0.25", "warmup=0.25"),
            f"max_lr={recipe['theirs']['lr']}",
        ],
    )
    config.work_dir = str(tmp_path)
    config.optim_wrapper.optimizer = recipe["optimizer"]
    config.optim_wrapper.clip_grad = None if recipe["clip"] is None else {"max_norm": recipe["clip"]}
    config.model.loss = recipe["loss"]
    config.model.batch_transforms = [{"type": "Mixup", **recipe["mixup"]}]
    config.model.classes = ("a", "b", "c", "d", "e")
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset = {"type": "Batches"}
        loader.sampler.shuffle = False
    model = MODELS.build(copy.deepcopy(dict(config.model)))
    Record.weights, Record.log = copy.deepcopy(model.state_dict()), []
    config.custom_hooks.append({"type": "Record"})
    DATASETS.register_module(module=Batches, force=True)
    HOOKS.register_module(module=Record, force=True)
    train_classifier(config)

    expected = plain_loop(model, recipe)
    assert len(Record.log) == len(expected) == 20
    for step, (ours, theirs) in enumerate(zip(Record.log, expected, strict=True)):
        for key, value in ours.items():
            assert value == pytest.approx(theirs[key], rel=1e-6), (step, key)


def plain_loop(model, recipe):
    """Five epochs of four steps with timm's parts."""
    model.batch_transforms = torch.nn.ModuleList()
    optimizer = timm.optim.create_optimizer_v2(model, **recipe["theirs"])
    schedule = timm.scheduler.CosineLRScheduler(
        optimizer, 20, lr_min=0.0, warmup_t=5, warmup_lr_init=1e-5, t_in_epochs=False
    )
    average = timm.utils.ModelEmaV2(model, decay=0.9)
    mixup = timm.data.Mixup(**recipe["mixup"], label_smoothing=recipe["smoothing"], num_classes=5)
    loss_of, data, log = recipe["their_loss"](), Batches(), []
    for step in range(20):
        samples = [data[step // 4, 4 * (step % 4) + place] for place in range(4)]
        images = torch.stack([sample["inputs"] for sample in samples]) / 255
        targets = torch.tensor([sample["targets"] for sample in samples])
        seed = int(np.random.SeedSequence([0, step, 0]).generate_state(1)[0])  # as SeedHook seeds
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        images, shares = mixup(images, targets)
        loss = loss_of(model.train()(images), shares)
        optimizer.zero_grad()
        loss.backward()
        if recipe["clip"]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["clip"])
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        average.update(model)
        schedule.step_update(step + 1)
        log.append(
            {
                "lr": rate,
                "loss": loss.item(),
                "weights": norm(model.parameters()),
                "average": norm(average.module.parameters()),
            }
        )
    return log


def test_training_prints_and_keeps_top_1(trained):
    work_dir, out = trained
    assert "val top1: raw " in out
    assert "best val top1 " in out
    best = torch.load(work_dir / "best.pth", weights_only=True)
    assert best["score"]["top1"] == max(best["score"]["raw/top1"], best["score"]["averaged/top1"])
    assert best["meta"]["model"]["classifier"]["multi_label"] is False
    assert "loss" not in best["meta"]["model"]["classifier"]
    model = load_model(work_dir / "best.pth")
    assert model.classes == ("blue", "green", "red")
    assert not model.multi_label
    with torch.no_grad():
        probabilities = model.probabilities(model(torch.rand(2, 3, 32, 32)))
    assert torch.allclose(probabilities.sum(1), torch.ones(2))


def test_checkpoint_alone_is_scored_with_the_score_of_training(trained, folders, tmp_path):
    work_dir, _ = trained
    arguments = ["--cfg-options", f"data_root={folders}", "val_images=val", "num_workers=0", "--work-dir", tmp_path]
    status, out, err = call("test_classifier", [work_dir / "best.pth", *arguments, "--report", tmp_path / "report"])
    assert (status, err) == (0, "")
    score = torch.load(work_dir / "best.pth", weights_only=True)["score"]
    assert json.loads((tmp_path / "scores.json").read_text())["headline"]["top1"] == pytest.approx(score["top1"])
    assert f"top-1 {score['top1']:.2f}" in out
    run = read_run(tmp_path)
    assert run.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert run.images[0] == "blue/0.jpg"
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Evaluation with one label per image" in page
    status, _, err = call("test_classifier", [FOLDERS, work_dir / "best.pth", *arguments])
    assert (status, err) == (0, "")


def test_mistakes_are_explained_by_the_class_that_they_were_taken_for(trained, folders, tmp_path):
    pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
    arguments = ["--cfg-options", f"data_root={folders}", "val_images=val", "num_workers=0", "--work-dir", tmp_path]
    status, _, err = call("test_classifier", [trained[0] / "epoch_1.pth", *arguments, "--explain"])
    assert (status, err) == (0, "")
    run = read_run(tmp_path)
    taken = run.probabilities.argmax(1)
    wrong = np.flatnonzero(taken != run.labels)
    assert {*run.explanations.pairs} == {(run.images[row], run.classes[taken[row]]) for row in wrong}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_run_equals_the_uninterrupted_one_with_mixup_erasing_and_timms_augmentation(folders, tmp_path, workers):
    changes = {
        "num_workers": workers,
        "model__batch_transforms": "[dict(type='RandomErasing'),dict(type='Mixup',mixup_alpha=0.8,cutmix_alpha=1.0)]",
        "model__backbone__drop_path_rate": 0.2,
        "keep_checkpoints": 5,
        "max_epochs": 3,
    }
    train(folders, tmp_path / "undisturbed", **changes)
    train(folders, tmp_path / "resumed", **changes, stop_epoch=1)
    train(folders, tmp_path / "resumed", "--resume", **changes)
    states = [torch.load(tmp_path / name / "epoch_3.pth", weights_only=True) for name in ("undisturbed", "resumed")]
    for key in ("state_dict", "averaged_state_dict"):
        assert all(torch.equal(value, states[1][key][name]) for name, value in states[0][key].items())


def test_checkpoint_alone_is_scored_without_images_that_cannot_be_read(trained, tmp_path):
    data = make_class_folders(tmp_path / "data", (1, 2))
    (data / "val/red/1.jpg").write_text("no image")
    arguments = [trained[0] / "best.pth", "--work-dir", tmp_path / "scored", "--cfg-options", f"data_root={data}"]
    arguments += ["val_images=val", "num_workers=0"]
    refused("test_classifier", arguments, "red/1.jpg", "on_bad_image=skip")
    assert call("test_classifier", [*arguments, "on_bad_image=skip"])[0] == 0
    assert len(read_run(tmp_path / "scored").images) == 5


def test_tables_with_one_label_train_and_score(folders, tmp_path):
    for split in ("train", "val"):
        names = sorted(path.relative_to(folders / split).as_posix() for path in (folders / split).rglob("*.jpg"))
        rows = [f"{name},{name.split('/')[0]}" for name in names]
        (tmp_path / f"{split}.csv").write_text("\n".join(["path,label", *rows]))
    tables = {f"{split}_annotations": tmp_path / f"{split}.csv" for split in ("train", "val")}
    out = train(folders, tmp_path / "run", **tables, max_epochs=1)
    assert "24 images of" in out


@pytest.mark.parametrize(
    "wrapper", ["dict(type='RepeatDataset', times=2, dataset={0})", "dict(type='ConcatDataset', datasets=[{0}, {0}])"]
)
def test_class_folders_train_where_they_are_repeated_or_joined(folders, tmp_path, wrapper):
    dataset = wrapper.format("_base_.train_dataloader.dataset")
    config = tmp_path / "wrapped.py"
    config.write_text(
        f"_base_ = [{str(ROOT / FOLDERS)!r}]\ntrain_dataloader = dict(dataset=dict(_delete_=True, **{dataset}))\n"
    )
    out = train(folders, tmp_path / "run", config=config, max_epochs=1)
    assert "48 images of" in out or "2 times in an epoch" in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_images": "train/red"}, ["train/red", "has no folders"]),
        ({"train_images": "nowhere"}, ["train_images", "no folder"]),
        (
            {"model__loss": "dict(type='AsymmetricLoss',_delete_=True)"},
            ["AsymmetricLoss", "several labels", "CrossEntropy"],
        ),
        (
            {
                "model__loss": "dict(type='FocalLoss',_delete_=True)",
                "model__batch_transforms": "[dict(type='Mixup',mixup_alpha=1)]",
            },
            ["Mixup", "FocalLoss", "does not take"],
        ),
        ({"warmup": 2}, ["Cosine: warmup=2"]),
        ({"val_evaluator": "dict(type='MultilabelMetric',_delete_=True)"}, ["SingleLabelMetric"]),
        ({"default_hooks__checkpoint": None}, ["default_hooks.checkpoint: is not set", "interval"]),
    ],
)
def test_wrong_input_ends_in_one_line(folders, tmp_path, changes, words):
    refused("train_classifier", [FOLDERS, "--work-dir", tmp_path, *options(folders, **changes)], *words)


def test_other_class_folders_in_validation_than_in_training_are_reported(tmp_path):
    data = make_class_folders(tmp_path / "data", (3, 2))
    (data / "val" / "red").rename(data / "val" / "pink")
    refused(
        "train_classifier", [FOLDERS, "--work-dir", tmp_path / "run", *options(data)], "pink", "not among the 3 classes"
    )


def test_one_class_alone_is_refused(folders, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(folders / split / "red", tmp_path / split / "red")
    arguments = [FOLDERS, "--work-dir", tmp_path / "run", *options(tmp_path)]
    refused("train_classifier", arguments, "train_dataloader.dataset", "only the class 'red'")


def test_each_tool_refuses_the_other_tasks_configs_and_checkpoints(trained, folders, tmp_path):
    work_dir, _ = trained
    refused("train_multilabel", [FOLDERS, "--work-dir", tmp_path, *options(folders)], "train_classifier.py")
    refused("train_classifier", [DIGITS, "--work-dir", tmp_path], "train_multilabel.py")
    refused("test_multilabel", [work_dir / "best.pth", "--work-dir", tmp_path], "test_classifier.py")


def test_no_thresholds_are_chosen_for_one_label(trained, folders, tmp_path):
    arguments = ["--cfg-options", f"data_root={folders}", "val_images=val", "num_workers=0", "--work-dir", tmp_path]
    assert call("test_classifier", [trained[0] / "best.pth", *arguments])[0] == 0
    refused("thresholds", [tmp_path, "--out", tmp_path / "t.json"], "one label per image")
