"""The command ``tresnet``: its subcommands, their help, and its error messages."""

import shlex
import subprocess
import sys
from importlib import import_module

import pytest
from running.small_data import ROOT

from tresnet_downstream.cli.main import COMMANDS, main
from tresnet_downstream.version import __version__
from tresnet_downstream.wording import of_command

SCRIPTS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))


def parser_of(name):
    return import_module(f"tresnet_downstream.cli.{COMMANDS[name].module}").parser()


def ended(arguments, capsys):
    """Exit status, standard output and standard error of a command that argparse may end."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    return (status, *capsys.readouterr())


def test_help_lists_every_command(capsys):
    status, out, _ = ended(["--help"], capsys)
    assert status == 0
    assert all(f"  {name} " in out and command.summary in out for name, command in COMMANDS.items())


def test_version(capsys):
    assert ended(["--version"], capsys) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["trian"], ["--verbose"]])
def test_a_command_line_without_a_known_command_has_status_2(arguments, capsys):
    status, _, err = ended(arguments, capsys)
    assert status == 2
    assert "tresnet COMMAND" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_two_examples_that_the_command_takes(name, capsys):
    with of_command(f"tresnet {name}"):
        parser = parser_of(name)
        text = parser.format_help()
        assert text.startswith(f"usage: tresnet {name} ")
        assert len(parser.examples) == 2
        for example in parser.examples:
            assert f"  tresnet {name} {example}\n" in text
            parser.parse_args(shlex.split(example))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["train", "score"])
@pytest.mark.parametrize("task", ["multilabel", "classifier", "detection", "joint"])
def test_the_script_of_a_task_shows_examples_of_its_own(name, task):
    module = import_module(f"tresnet_downstream.cli.{name}")
    with of_command():
        parser = module.parser(task)
        assert "examples:\n  python tools/" in parser.format_help()
        for example in parser.examples:
            parser.parse_args(shlex.split(example))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_a_few_lines_onto_its_command(name):
    lines = (ROOT / "tools" / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 14
    assert any(line.startswith("from tresnet_downstream.cli.") for line in lines)


def test_a_script_and_the_command_take_the_same_options():
    for name, script in (("train", "train"), ("score", "test"), ("predict", "predict"), ("check", "check_data")):
        command = [sys.executable, ROOT / "tools" / f"{script}.py", "--help"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}).stdout
        with of_command(f"tresnet {name}"):
            flags = {flag for action in parser_of(name)._actions for flag in action.option_strings}
        assert all(flag in text for flag in flags)


def test_a_config_alone_is_not_scored(capsys):
    for config in ("digits_tresnet", str(ROOT / "configs" / "digits_tresnet.py")):
        status, _, err = ended(["score", config], capsys)
        assert status == 2
        assert "is a config; name the checkpoint after it" in err


def test_seeds_and_a_seed_of_the_config_are_refused_together(capsys):
    status, _, err = ended(["train", "digits_tresnet", "--seeds", "0", "1", "--cfg-options", "seed=3"], capsys)
    assert status == 2
    assert "--seeds: --cfg-options sets seed too" in err


def test_messages_name_the_command_that_the_user_ran(tmp_path, capsys):
    status, _, err = ended(["report", str(tmp_path), "--out", str(tmp_path / "report")], capsys)
    assert status == 2
    assert "tresnet score writes run folders" in err
    command = [sys.executable, ROOT / "tools/report.py", tmp_path, "--out", tmp_path / "report"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 2
    assert "tools/test.py writes run folders" in result.stderr
