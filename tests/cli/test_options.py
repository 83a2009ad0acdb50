"""The options of the commands: each option is used, has one meaning in all commands, and sets its config key."""

import argparse
import ast
import importlib.util
import os
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from running.small_data import DIGITS, ROOT, call, make_small_data, options, refused
from running.small_data import train as train_small

from tresnet_downstream.cli.options import CONFIG_KEYS, changes_of, use_device
from tresnet_downstream.cli.tasks import TASKS, task_of
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config, read_config_file

CLI = ROOT / "tresnet_downstream" / "cli"
NAMES = ("size", "batch_size", "workers", "seed", "threshold")
CONFIGS = {
    "multilabel": "digits_tresnet",
    "classifier": "tiny_imagenet_tresnet_64",
    "detection": "digits_retinanet_tresnet",
    "joint": "digits_labels_and_boxes",
}


def reference():
    spec = importlib.util.spec_from_file_location("make_options", ROOT / "docs" / "make_options.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def functions(*modules):
    """The functions of modules of cli/, by name."""
    trees = [ast.parse((CLI / f"{module}.py").read_text()) for module in modules]
    return {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def names_read(module):
    """What a command reads of its parsed options: in its own functions, and in the shared ones that it calls."""
    own, shared = functions(module), functions("options")
    waiting, seen, names = list(own.values()), set(), set()
    while waiting:
        function = waiting.pop()
        if function.name in seen:
            continue
        seen.add(function.name)
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "options":
                names.add(node.attr)
            if isinstance(node, ast.Name) and node.id in shared:
                waiting.append(shared[node.id])
            # `getattr(options, name)` for names that stand in the function, or in a table of the module.
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    text = (CLI / f"{module}.py").read_text()
    if "vars(parser().parse_args" in text:  # all of them are passed on by name
        names |= {action.dest for action in import_module(f"tresnet_downstream.cli.{module}").parser()._actions}
    return names | ({"weights", "explain", "tta"} if "_TASKS_OF.items()" in text else set())


def test_every_option_of_every_command_is_read():
    module = reference()
    for name, parser in module.parsers():
        read = names_read(name.split()[0])
        dests = {action.dest for action in parser._actions if action.dest not in ("help", "imported")}
        dests -= {action.dest for action in parser._actions if action.dest == "==SUPPRESS=="}
        assert dests - read == set(), name


def test_the_page_of_options_is_the_commands_own_help():
    module = reference()
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python docs/make_options.py"


def test_every_option_has_a_help():
    for name, parser in reference().parsers():
        actions = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
        assert [action.dest for action in actions if not action.help] == [], name


def given(task, **values):
    none = dict.fromkeys(NAMES)
    return SimpleNamespace(config=CONFIGS[task], cfg_options=[], amp=None, **{**none, **values})


@pytest.mark.parametrize("task", TASKS)
def test_the_task_of_a_config(task):
    if task in ("detection", "joint"):
        pytest.importorskip("mmdet", reason="needs the detection set-up")
    assert task_of(read_config_file(ROOT / "configs" / f"{CONFIGS[task]}.py")) == task


@pytest.mark.parametrize("task", TASKS)
def test_options_set_keys_that_the_config_has(task):
    if task in ("detection", "joint"):
        pytest.importorskip("mmdet", reason="needs the detection set-up")
    from tresnet_downstream.running.options import with_options

    raw = read_config_file(ROOT / "configs" / f"{CONFIGS[task]}.py")
    values = {name: 0.25 if name == "threshold" else 3 for name in CONFIG_KEYS[task]}
    config = with_options(raw, changes_of(given(task, **values), task, "train_dataloader"))
    assert config.train_dataloader.batch_size == config.train_dataloader.num_workers == config.randomness.seed == 3
    assert config.val_dataloader.num_workers == 3
    if "size" in values:
        assert config.val_pipeline[0].size == 3
    if "threshold" in values:
        assert (config.val_evaluator if task == "multilabel" else config.labels).threshold == 0.25


@pytest.mark.parametrize(
    ("task", "name", "words"),
    [
        ("detection", "size", "pipelines set the size"),
        ("joint", "size", "pipelines set the size"),
        ("detection", "threshold", "is for a detector"),
        ("classifier", "threshold", "one label per image"),
    ],
)
def test_an_option_of_another_task_is_refused(task, name, words):
    with pytest.raises(UserError, match=words):
        changes_of(given(task, **{name: 1}), task, "train_dataloader")


def test_an_option_and_its_key_together_are_refused():
    options = given("multilabel", batch_size=4)
    options.cfg_options = ["batch_size=8"]
    with pytest.raises(UserError, match="`cfg_options` sets batch_size too"):
        changes_of(options, "multilabel", "train_dataloader")


def test_a_detector_without_workers_has_none_that_persist():
    changes = changes_of(given("detection", workers=0), "detection", "train_dataloader")
    assert "train_dataloader.persistent_workers=False" in changes
    assert "val_dataloader.persistent_workers=False" in changes


def test_options_train_and_score_as_their_keys_do(tmp_path):
    data = make_small_data(tmp_path / "data")
    train_small(data, tmp_path / "keys", max_epochs=1, seed=3, batch_size=6)
    as_keys = [change for change in options(data, max_epochs=1) if not change.startswith(("batch_size", "num_workers"))]
    flags = ["--seed", "3", "--batch-size", "6", "--workers", "0", "--device", "cpu", "--out", tmp_path / "flags"]
    status, _, err = call("train", [DIGITS, *flags, *as_keys])
    assert (status, err) == (0, "")
    tables = []
    for name in ("keys", "flags"):
        best = tmp_path / name / "best.pth"
        arguments = [DIGITS, best, "--out", tmp_path / f"scored_{name}", "--threshold", "0.4", *options(data)]
        status, out, err = call("test", arguments)
        assert (status, err) == (0, "")
        tables.append([line for line in out.splitlines() if str(tmp_path) not in line])
    assert tables[0] == tables[1]
    assert any("0.4" in line for line in tables[0])


def test_dicts_with_numbers_as_keys_have_text_as_keys():
    config = load_config(DIGITS, ["class_weights={9:3.0,'1':2}"])
    assert config.class_weights == {"9": 3.0, "1": 2}


@pytest.mark.slow
def test_scores_are_written_though_the_reader_of_the_table_is_gone(tmp_path):
    data = make_small_data(tmp_path / "data")
    train_small(data, tmp_path / "run", max_epochs=1)
    arguments = [DIGITS, tmp_path / "run" / "best.pth", *options(data)]
    command = [sys.executable, ROOT / "tools" / "test_multilabel.py", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    # In the folder of the training that the checkpoint lies in, since no other is named.
    assert (tmp_path / "run" / "run.json").is_file()
    assert (tmp_path / "run" / "scores.json").is_file()


@pytest.mark.slow
def test_a_training_goes_to_its_end_though_the_reader_of_its_output_is_gone(tmp_path):
    data = make_small_data(tmp_path / "data")
    arguments = [DIGITS, "--out", tmp_path / "run", *options(data, max_epochs=2)]
    command = [sys.executable, ROOT / "tools" / "train_multilabel.py", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "run" / "epoch_2.pth").is_file()
    assert "Epoch(val) [2]" in next((tmp_path / "run").rglob("*.log")).read_text()


def test_a_shared_folder_is_scored_as_its_checkpoint(tmp_path):
    data = make_small_data(tmp_path / "data")
    train_small(data, tmp_path / "run", max_epochs=1)
    status, _, err = call("weights", ["share", tmp_path / "run/best.pth", tmp_path / "shared", "--licence", "mit"])
    assert status == 0, err
    tables = []
    for name in ("run/best.pth", "shared"):
        status, out, err = call("test", [DIGITS, tmp_path / name, "--out", tmp_path / "scored", *options(data)])
        assert status == 0, err
        lines = [line for line in out.splitlines() if str(tmp_path) not in line]
        tables.append([line for line in lines if not line.startswith("note: ")])
    assert tables[0] == tables[1]


def test_an_unknown_device_is_refused(tmp_path):
    refused("train_multilabel", [DIGITS, "--device", "gpu9", "--out", tmp_path], "--device gpu9")


@pytest.mark.parametrize(
    ("name", "visible", "after"), [("cpu", None, ""), ("cuda:1", None, "1"), ("cuda:1", "4,6", "6")]
)
def test_a_device_is_the_only_one_that_is_visible(name, visible, after, monkeypatch):
    module = import_module("tresnet_downstream.cli.options")
    monkeypatch.setattr(module, "best_device", lambda name: name)
    monkeypatch.setattr("mmengine.device.get_device", lambda: name.partition(":")[0])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    use_device(name, "none")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_a_device_that_mmengine_would_not_take_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("mmengine.device.get_device", lambda: "mps")
    with pytest.raises(UserError, match="MMEngine trains and scores on mps here"):
        use_device("cpu", "none")


def test_a_device_with_an_index_is_refused_under_torchrun():
    with pytest.raises(UserError, match="torchrun gives each process its own device"):
        use_device("cuda:1", "pytorch")
