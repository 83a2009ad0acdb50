"""Config keys of a detector's training: learning rates by part, freezing, clipping, early stopping, splits."""

import json
import shutil

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, flags
from detection.test_training import refused
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from running.recorded import STEPS, two_lines
from running.test_resume import read
from running.torchrun import train_on_processes

from tresnet_downstream.detection.training import score_detection
from tresnet_downstream.errors import UserError
from tresnet_downstream.running import folders
from tresnet_downstream.running.config import load_config

NORMS = []


@HOOKS.register_module(force=True)
class RecordedDetectorNorms(Hook):
    """Keeps the norm of the gradients of each step."""

    def before_train(self, runner):
        def keep(optimiser, *_):
            gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
            NORMS.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)


def run(boxes, work_dir, config, *more, **changes):
    """Trains with the tool, which must end well; gives what it printed and the recorded steps."""
    STEPS.clear()
    NORMS.clear()
    status, out, err = call("train_detection", [config, "--work-dir", work_dir, *more, *flags(boxes, **changes)])
    assert status == 0, err
    return out, list(STEPS)


def states(work_dir, *epochs):
    return [read(work_dir / f"epoch_{epoch}.pth")["state_dict"] for epoch in epochs]


def are_equal(one, other, prefix=""):
    names = [name for name in one if name.startswith(prefix)]
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.slow
def test_each_part_has_its_factor_on_the_rate_of_mmdetections_schedules(boxes, tmp_path):
    _, plain = run(boxes, tmp_path / "a", two_lines(tmp_path, "lr_factors = dict()", CONFIG, True))
    _, steps = run(boxes, tmp_path / "b", two_lines(tmp_path, "lr_factors = dict(backbone=0.1)", CONFIG, True))
    assert len(plain) == len(steps) == 6
    for before, after in zip(plain, steps, strict=True):
        assert before["rates"].keys() == after["rates"].keys()
        for name, rate in after["rates"].items():
            assert rate == before["rates"][name] * (0.1 if name.startswith("backbone.") else 1), name


def test_layers_of_the_backbone_decay(boxes, tmp_path):
    config = two_lines(tmp_path, "layer_decay = 0.5; layer_decay_unit = 'stage'", CONFIG, True)
    _, steps = run(boxes, tmp_path / "run", config, train_cfg__max_epochs=1)
    rates = steps[0]["rates"]
    head = next(rate for name, rate in rates.items() if name.startswith("bbox_head."))
    expected = {"neck.": 1, "backbone.layer4.": 0.5, "backbone.layer1.": 1 / 16, "backbone.stem.": 1 / 32}
    for prefix, factor in expected.items():
        values = [rate / head for name, rate in rates.items() if name.startswith(prefix)]
        assert values == pytest.approx([factor] * len(values))


def test_a_part_that_the_detector_does_not_have_is_refused(boxes, tmp_path):
    config = two_lines(tmp_path, "lr_factors = dict(bbox_hed=0.1)", CONFIG)
    refused([config, "--work-dir", tmp_path / "run", *flags(boxes)], "'bbox_hed'", "nearest: bbox_head")


@pytest.mark.slow
def test_run_with_factors_and_frozen_parts_resumes_to_the_same_weights(boxes, tmp_path):
    line = "lr_factors = dict(backbone=0.1, neck=0.5); freeze = dict(backbone=2); clip_grad = 1.0"
    config = two_lines(tmp_path, line, CONFIG)
    changes = {"train_cfg__max_epochs": 3, "default_hooks__checkpoint__max_keep_ckpts": 3}
    out, _ = run(boxes, tmp_path / "whole", config, **changes)
    assert "frozen: backbone (epoch 1 to 2)" in out
    assert "trained from epoch 3: backbone" in out
    assert "clip_grad=1.0 replaces optim_wrapper.clip_grad={'max_norm': 10}" in out
    first, second, third = states(tmp_path / "whole", 1, 2, 3)
    assert are_equal(first, second, "backbone.")
    assert not are_equal(second, third, "backbone.stem.")
    assert not are_equal(first, second, "neck.")
    run(boxes, tmp_path / "parts", config, **changes)
    for epoch in (2, 3):
        (tmp_path / f"parts/epoch_{epoch}.pth").unlink()
    (tmp_path / "parts/last_checkpoint").write_text("epoch_1.pth")
    run(boxes, tmp_path / "parts", config, "--resume", **changes)
    assert are_equal(*states(tmp_path / "parts", 3), third)


@pytest.mark.slow
def test_frozen_parts_are_in_evaluation_mode_beside_those_that_the_backbone_freezes(boxes, tmp_path):
    config = two_lines(tmp_path, "freeze = {'backbone.layer4': 'always'}", CONFIG, True)
    _, steps = run(boxes, tmp_path / "run", config, **{"train_cfg__max_epochs": 1, "model.backbone.frozen_stages": 1})
    trained = {".".join(name.split(".")[:2]) for name in steps[0]["trained"] if name.startswith("backbone.")}
    training = {".".join(name.split(".")[:2]) for name in steps[0]["training"] if name.startswith("backbone.")}
    assert trained == {"backbone.layer2", "backbone.layer3"}
    assert training == trained


@pytest.mark.slow
def test_gradients_are_clipped_by_the_key_and_else_by_the_config(boxes, tmp_path):
    hook = "custom_hooks = [dict(type='mmengine.RecordedDetectorNorms')]"
    for name, line, largest in (("a", "clip_grad = None", 10), ("b", "clip_grad = 0.25", 0.25)):
        run(boxes, tmp_path / name, two_lines(tmp_path, f"{line}; {hook}", CONFIG), train_cfg__max_epochs=1)
        assert len(NORMS) == 3
        assert max(NORMS) <= largest * 1.001
        if name == "b":
            assert pytest.approx([0.25] * 3, rel=1e-3) == NORMS


@pytest.mark.slow
def test_training_ends_early_and_says_why_and_a_resumed_one_trains_no_more(boxes, tmp_path):
    config = two_lines(tmp_path, "patience = 2; min_delta = 200", CONFIG)
    out, _ = run(boxes, tmp_path / "run", config, train_cfg__max_epochs=6)
    (line,) = [line for line in out.splitlines() if line.startswith("stopped at")]
    assert line.startswith("stopped at epoch 3: no better AP by more than 200 for 2 validations (best ")
    assert folders.last_checkpoint(tmp_path / "run").name == "epoch_3.pth"
    best = read(next((tmp_path / "run").glob("best_*")))["message_hub"]["runtime_info"]["best_score"]
    assert line.endswith(f"(best {100 * best:.2f})")
    out, _ = run(boxes, tmp_path / "run", config, "--resume", train_cfg__max_epochs=6)
    assert "nothing is left to train: no better AP" in out
    assert "epoch 4/6" not in out


def test_early_stopping_needs_a_score_that_chooses_the_best_checkpoint(boxes, tmp_path):
    config = two_lines(tmp_path, "patience = 2", CONFIG)
    options = flags(boxes, default_hooks__checkpoint__save_best="None")
    refused([config, "--work-dir", tmp_path / "run", *options], "patience=2", "default_hooks.checkpoint.save_best")


@pytest.fixture(scope="module")
def with_test_split(boxes, tmp_path_factory):
    """The data with a file ``test.json`` of half of the validation images and one of training."""
    folder = tmp_path_factory.mktemp("splits") / "data"
    shutil.copytree(boxes, folder)
    content, training = (json.loads((folder / f"{name}.json").read_text()) for name in ("val", "train"))
    images = content["images"][:3]
    ids = {image["id"] for image in images}
    rows = [each for each in content["annotations"] if each["image_id"] in ids]
    images.append({**training["images"][0], "id": 99})
    rows.append(
        {**next(e for e in training["annotations"] if e["image_id"] == images[-1]["id"] or True), "image_id": 99}
    )
    for number, row in enumerate(rows):
        row["id"] = number + 1
    (folder / "test.json").write_text(json.dumps({**content, "images": images, "annotations": rows}))
    return folder


def score(data, checkpoint, work_dir, split, *further):
    config = load_config(CONFIG, [*flags(data)[1:], *further])
    config.work_dir = str(work_dir)
    return score_detection(config, checkpoint, split=split)


@pytest.mark.slow
def test_the_chosen_split_is_scored_and_recorded_in_the_run(with_test_split, trained_detector, tmp_path, capsys):
    checkpoint = trained_detector[0] / "epoch_2.pth"
    own = ["test_dataloader.dataset.ann_file=test.json", "test_dataloader.dataset.data_prefix.img=pictures/"]
    own += [f"test_dataloader.dataset.data_root={with_test_split}/", "test_dataloader.dataset.metainfo=None"]
    own += ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
    for split, count in (("val", 6), ("test", 4)):
        capsys.readouterr()
        _, outcome = score(with_test_split, checkpoint, tmp_path, split, *own)
        assert (len(outcome.image_ids), outcome.about["split"]) == (count, split)
        assert outcome.about["data"] == f"{with_test_split}/{split}.json"
        printed = capsys.readouterr().out
        assert ("the val split is scored; the config has other data for `split` test" in printed) == (split == "val")
        warned = f"1 of the 4 images of the test split are in the training data too, such as {with_test_split}/pictures"
        assert (warned in printed) == (split == "test")


def test_splits_that_are_the_same_data_are_reported(boxes, trained_detector, tmp_path, capsys):
    _, outcome = score(boxes, trained_detector[0] / "epoch_2.pth", tmp_path, "test")
    assert outcome.about["split"] == "test"
    assert "note: the test data of the config is its validation data" in capsys.readouterr().out
    with pytest.raises(UserError, match="choose val or test"):
        score(boxes, trained_detector[0] / "epoch_2.pth", tmp_path, "train")


def test_training_says_that_validation_images_are_trained_on(boxes, tmp_path):
    changes = {"val_dataloader__dataset__ann_file": "train.json", "train_cfg__max_epochs": 1}
    out, _ = run(boxes, tmp_path / "run", CONFIG, **changes)
    assert "warning: 12 of the 12 images of the val split are in the training data too" in out


@pytest.mark.slow
def test_two_processes_freeze_and_train_as_one_does(boxes, tmp_path):
    config = two_lines(tmp_path, "freeze = dict(backbone=1)", CONFIG)
    changes = {"train_dataloader__batch_size": 2, "train_cfg__max_epochs": 2, "model.backbone.norm_eval": True}
    ended = train_on_processes(2, config, tmp_path / "run", *flags(boxes, **changes), tool="train_detection")
    assert ended.status == 0, ended.err
    assert "trained from epoch 2: backbone" in ended.out
    first, second = states(tmp_path / "run", 1, 2)
    assert not are_equal(first, second, "backbone.stem.")
