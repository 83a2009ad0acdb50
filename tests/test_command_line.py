"""Exit status and shared options of the tools."""

import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from running.small_data import DIGITS, ROOT, call, make_small_data, options, refused, tool, train

from tresnet_downstream.cli.train import parser
from tresnet_downstream.command_line import run
from tresnet_downstream.errors import UserError

TOOLS = ["train_multilabel", "test_multilabel"]


def ending_in(error):
    def main(arguments):
        raise error

    return main


def test_good_end_is_0_and_silent(capsys):
    seen = []
    assert run(seen.append, ["a"]) == 0
    assert seen == [["a"]]
    assert capsys.readouterr() == ("", "")


def test_mistake_of_the_users_is_2_and_one_line(capsys):
    assert run(ending_in(UserError("data.csv: line 3\n  has no path")), []) == 2
    assert capsys.readouterr() == ("", "error: data.csv: line 3 has no path\n")


def test_mistake_found_in_a_worker_is_the_same_line(capsys):
    message = (
        "Caught UserError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in fetch\n'
        "tresnet_downstream.errors.UserError: a.jpg: unreadable image: Error: broken\n"
    )
    assert run(ending_in(UserError(message)), []) == 2
    assert capsys.readouterr().err == "error: a.jpg: unreadable image: Error: broken\n"


def test_message_names_all_that_the_error_does_whatever_caused_it(capsys):
    def main(arguments):
        try:
            raise UserError("no class 'cat'")
        except UserError as error:
            raise UserError(f"labels.csv: {error}") from error

    run(main, [])
    assert capsys.readouterr().err == "error: labels.csv: no class 'cat'\n"


def test_control_c_is_130_and_one_line(capsys):
    assert run(ending_in(KeyboardInterrupt()), []) == 130
    err = capsys.readouterr().err
    assert err.startswith("interrupted")
    assert err.count("\n") == 1


def test_control_c_that_a_library_took_for_an_error_is_130_too(capsys):
    def main(arguments):
        try:
            raise KeyboardInterrupt
        except:  # noqa: E722
            raise SyntaxError("cannot format the config")  # noqa: B904

    assert run(main, []) == 130
    assert capsys.readouterr().err.startswith("interrupted")


PRINTING = """
import sys
from tresnet_downstream.cli.train import parser
from tresnet_downstream.command_line import run

def main(arguments):
    sys.stdin.read()  # until the reader of standard output is gone
    print("a line")

sys.exit(run(main, []))
"""
BREAKING_A_PIPE = """
import os, sys
from tresnet_downstream.cli.train import parser
from tresnet_downstream.command_line import run

def main(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    os.write(writing, b"to a worker")

sys.exit(run(main, []))
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_output_ends_a_tool_with_status_0_and_no_message(unbuffered):
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONUNBUFFERED": unbuffered}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", PRINTING], env=environment, text=True, **pipes)
    process.stdout.close()
    process.stdin.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (0, "")


def test_another_broken_pipe_is_an_error():
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-c", BREAKING_A_PIPE]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(ending_in(ZeroDivisionError()), [])


@pytest.mark.parametrize(("arguments", "amp"), [([], None), (["--amp"], "bfloat16"), (["--amp", "float16"], "float16")])
def test_amp_without_a_type_is_bfloat16(arguments, amp):
    assert parser().parse_args(["mine.py", *arguments]).amp == amp


@pytest.mark.parametrize("name", TOOLS)
def test_help_names_every_option_and_needs_no_torch(name):
    program = (
        f"import sys; sys.argv = ['{name}', '--help']; sys.modules['torch'] = None\n"
        f"import runpy; runpy.run_path({str(ROOT / 'tools' / (name + '.py'))!r}, run_name='__main__')"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    for option in ("config", "--work-dir", "--cfg-options", "--amp", "--launcher"):
        assert option in result.stdout


@pytest.mark.parametrize("name", TOOLS)
def test_unknown_flag_is_2(name, capsys):
    with pytest.raises(SystemExit) as error:
        run(tool(name), ["mine.py", "best.pth", "--fast"])
    assert error.value.code == 2
    assert "--fast" in capsys.readouterr().err


def test_launcher_without_torchrun_is_named(tmp_path, capsys, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    data = make_small_data(tmp_path / "data")
    arguments = [DIGITS, "--launcher", "pytorch", *options(data)]
    assert run(tool("train_multilabel"), arguments) == 2
    assert "torchrun" in capsys.readouterr().err


def test_amp_option_trains_and_scores_in_that_precision(tmp_path):
    data = make_small_data(tmp_path / "data")
    train(data, tmp_path / "work", "--amp", max_epochs=1)
    (written,) = (tmp_path / "work").rglob("config.py")
    config = Config.fromfile(written)
    assert config.optim_wrapper.amp == config.val_cfg.amp == "bfloat16"


def test_results_go_to_a_folder_named_after_the_config(tmp_path, monkeypatch):
    data = make_small_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    status, out, err = call("train_multilabel", [DIGITS, *options(data, max_epochs=1)])
    assert (status, err) == (0, "")
    assert "results are in work_dirs/digits_tresnet" in out
    assert (tmp_path / "work_dirs/digits_tresnet/best.pth").exists()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_batch_that_does_not_fit_ends_in_one_line(error, capsys):
    assert run(ending_in(error)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: the batch does not fit in memory: give a smaller `batch_size`")
    assert told.count("\n") == 1


OWN_HEAD = """
from torch import nn

from tresnet_downstream.registry import MODELS


@MODELS.register_module(force=True)
class MaxPoolHead(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features):
        return self.fc(features.amax((2, 3)))
"""


@pytest.fixture
def _own_modules():
    before, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]
    sys.path[:] = path
    from tresnet_downstream.registry import MODELS

    MODELS.module_dict.pop("MaxPoolHead", None)


@pytest.mark.usefixtures("_own_modules")
@pytest.mark.parametrize("way", ["option", "config"])
def test_a_head_in_a_users_file_trains(tmp_path, way):
    (tmp_path / "own_head.py").write_text(OWN_HEAD)
    data = make_small_data(tmp_path / "data")
    config = DIGITS
    if way == "config":
        config = tmp_path / "mine.py"
        config.write_text(f"_base_ = ['{DIGITS}']\ncustom_imports = dict(imports=['own_head'])\n")
    named = ["--import", str(tmp_path / "own_head.py")] if way == "option" else []
    chosen = options(data, model__head="dict(type='MaxPoolHead')", max_epochs="1")
    chosen = [option for option in chosen if "num_classes" not in option]
    status, out, err = call("train_multilabel", [config, *named, "--work-dir", tmp_path / "run", *chosen])
    assert (status, err) == (0, "")
    assert "best val mAP" in out


@pytest.mark.usefixtures("_own_modules")
@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        (None, "own_missing.py", "no such Python file"),
        ("1 / 0", "own_broken.py", "ZeroDivisionError: division by zero"),
        ("", "json.py", "json is another module's name"),
        ("", "own-parts.py", "rename the file"),
    ],
)
def test_a_file_that_cannot_be_imported_is_reported_in_one_line(tmp_path, text, name, told):
    if text is not None:
        (tmp_path / name).write_text(text)
    refused("train_multilabel", [DIGITS, "--import", tmp_path / name], f"--import {tmp_path / name}: ", told)
