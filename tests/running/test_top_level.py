"""Top-level config keys that no code reads."""

from types import SimpleNamespace

import pytest
from running.small_data import DIGITS, ROOT, train, with_bases

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.top_level import (
    DETECTORS_REPEAT_THRESHOLD,
    tell_ineffective_keys,
    tell_unread_keys,
)

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
DETECTOR = ROOT / "configs/digits_retinanet_tresnet.py"


def load(path, options=()):
    if "mmdet::" in with_bases(path):
        pytest.importorskip("mmdet", reason="needs the detection set-up")
    return load_config(path, options)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_our_configs_assign_nothing_that_nothing_reads(path, capsys):
    config = load(path)
    tell_unread_keys(config)
    tell_ineffective_keys(config)
    assert capsys.readouterr().out == ""


def test_names_of_a_users_own_file_that_nothing_reads_are_reported_in_one_line(data, tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(
        f"_base_ = [{DIGITS!r}]\n"
        "max_epoch = 3\n"  # not max_epochs
        "sizes = (32, 32)\n"
        "unheard_of: int = 1\n"
        "image_size = sizes[0]\n"
        "mine = 0.5\n"
        "model = dict(loss=dict(clip='$mine'))\n"
    )
    printed = train(data, tmp_path / "run", config=config, max_epochs=1)
    line = (
        f"note: {config}: these names have no effect: max_epoch (train_cfg.max_epochs?), unheard_of; correct or remove "
        "them"
    )
    assert printed.splitlines().count(line) == 1


def test_a_config_that_a_run_saved_is_left_alone(data, tmp_path):
    train(data, tmp_path / "one", max_epochs=1)
    assert "have no effect" not in train(
        data, tmp_path / "two", config=tmp_path / "one/digits_tresnet.py", max_epochs=1
    )


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("max_epoch=3", "has no key 'max_epoch'; nearest: train_cfg.max_epochs"),
        ("max_epochs=3", "max_epochs: nothing in .* no effect; nearest: train_cfg.max_epochs"),
        ("train_pipeline.0.type=Mine", "train_pipeline.0.type: nothing in .* no effect"),
        ("coco_evl=faster_coco_eval", "has no key 'coco_evl'; nearest: coco_eval"),
        ("train_cfg.max_epoch=3", "train_cfg has no key 'max_epoch'; nearest: max_epochs"),
        ("unheard_of=3", "has no key 'unheard_of'; it has "),
    ],
)
def test_option_of_a_detector_that_nothing_reads_is_refused_with_the_nearest_keys(option, words):
    with pytest.raises(UserError, match=words):
        load(DETECTOR, [option])


def test_keys_that_mmengine_or_mmdetection_reads_are_known_though_the_config_has_none():
    config = load(DETECTOR, ["find_unused_parameters=True", "experiment_name=mine", "auto_scale_lr.enable=True"])
    assert (config.find_unused_parameters, config.experiment_name) == (True, "mine")
    assert config.auto_scale_lr.enable is True


def test_option_of_a_classifier_names_the_nearest_keys():
    with pytest.raises(UserError, match="has no key 'max_epoch'; nearest: max_epochs"):
        load_config(DIGITS, ["max_epoch=3"])


@pytest.mark.parametrize("change", [{"max_epoch": 3}, {"max_epochs": 3}])
def test_mmdetections_own_tools_refuse_such_an_option_too(change):
    """They merge options without looking at them."""
    load(DETECTOR)
    from mmengine.config import Config

    from tresnet_downstream.detection.runner import DetectionRunner

    config = Config.fromfile(DETECTOR)
    config.merge_from_dict({**change, "work_dir": "unused"})
    with pytest.raises(UserError, match=r"no effect; nearest: train_cfg\.max_epochs"):
        DetectionRunner.from_cfg(config)


def test_a_config_without_a_file_has_no_keys_of_its_own(capsys):
    tell_unread_keys(SimpleNamespace(filename=None))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["min_delta=0.5"], "min_delta=0.5 has no effect without patience"),
        (["min_delta=0.5", "patience=3"], ""),
        (["stop_epoch=9", "max_epochs=4"], "stop_epoch=9 has no effect: the training has 4 epochs"),
        (["stop_epoch=4", "max_epochs=4"], ""),
        (["repeat_threshold=0.3"], "repeat_threshold=0.3 has no effect without sampling='repeat_factor'"),
        (["repeat_threshold=0.3", "sampling=class_balanced"], "repeat_threshold=0.3 has no effect without sampling="),
        (["repeat_threshold=0.3", "sampling=repeat_factor"], ""),
    ],
)
def test_keys_that_another_key_leaves_without_effect_are_reported(changes, line, capsys):
    tell_ineffective_keys(load_config(DIGITS, changes))
    printed = capsys.readouterr().out
    assert printed.startswith(f"note: {line}") if line else printed == ""


def test_the_default_threshold_of_detectors_is_not_reported_and_another_one_is(capsys):
    config = load(DETECTOR)
    assert config.repeat_threshold == DETECTORS_REPEAT_THRESHOLD
    tell_ineffective_keys(config)
    assert capsys.readouterr().out == ""
    config.repeat_threshold = 0.3
    tell_ineffective_keys(config)
    assert "repeat_threshold=0.3 has no effect" in capsys.readouterr().out
