"""Every command in the documentation exists: its options, configs and config keys are checked."""

import argparse
import contextlib
import importlib
import inspect
import io
import re
import shlex
import warnings
from functools import partial
from unittest import mock

import pytest
from docs.pages import PAGES, ROOT, blocks, name_of, prose
from running.small_data import tool

from tresnet_downstream.cli.config_names import packaged_names
from tresnet_downstream.cli.main import COMMANDS
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config
from tresnet_downstream.wording import of_command


@pytest.fixture(autouse=True)
def _options_of_no_other_command():
    """A parser gives the names of its options to the running command: here to none that later tests see."""
    with of_command():
        yield


TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = re.findall(
    r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1], re.MULTILINE
)
# Where a config is named: commands whose first argument is one.
OF_CONFIGS = ("train", "score", "config", "check")
STARTS = ("tresnet ", "python ", "make ", "mim ", "torchrun ", "pip ", "OMP_NUM_THREADS=1 python ", "taskset ")

EXAMPLES = {block.text.split()[1] for page in PAGES for block in blocks(page) if block.text.startswith("# own_")}


def fenced():
    """The commands in the blocks without a language, each as its page, its line and its text."""
    for page in PAGES:
        for block in blocks(page):
            if block.language not in ("", "bash", "shell"):
                continue
            for offset, line in enumerate(joined(block.text).splitlines()):
                if line.startswith(STARTS):
                    yield pytest.param(line, id=f"{name_of(page)}:{block.line + offset}")


def joined(text):
    """The text with continued lines as one."""
    return re.sub(r" *\\\n *", " ", text)


def inline():
    """The commands in backquotes within the prose of a page, as one test for each page."""
    for page in PAGES:
        text = "\n".join(line for _, line in prose(page))
        spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
        spans = [span for span in spans if re.match(r"(tresnet|make|mim|python) [a-z]|(python )?tools/\w+\.py", span)]
        if spans:
            yield pytest.param(spans, id=name_of(page))


COMMAND_LINES = list(fenced())


def words_of(line):
    """The words of a command line, without comments, what a reader fills in, and files of examples to import."""
    words = shlex.split(line, comments=True)
    while "--import" in words:
        place = words.index("--import")
        assert words[place + 1] in EXAMPLES, f"no page has the file {words[place + 1]}"
        del words[place : place + 2]
    return [word.replace("=...", "=x") for word in words if word != "..."]


def parser_of(module, **task):
    """The parser of a command; a script of ``tools/`` may be for one task."""
    parser = importlib.import_module(module).parser
    return parser(**task) if "task" in inspect.signature(parser).parameters else parser()


def command_of(words):
    """Parser, arguments and name of the command of a ``tresnet`` or ``python`` line; None for a script of ``data/``."""
    if words[0] == "tresnet" or words[:3] == ["python", "-m", "tresnet_downstream"]:
        name, *rest = words[1 if words[0] == "tresnet" else 3 :]
        assert name in COMMANDS, f"there is no command {name}"
        return parser_of(f"tresnet_downstream.cli.{COMMANDS[name].module}"), rest, name
    script, *rest = words[1:]
    assert (ROOT / script).is_file(), f"there is no {script}"
    if not script.startswith("tools/"):
        return None
    main = tool(script.removeprefix("tools/").removesuffix(".py"))
    task = main.keywords if isinstance(main, partial) else {}
    module = (main.func if isinstance(main, partial) else main).__module__
    return parser_of(module, **task), rest, module.rpartition(".")[2]


def check_parsed(parser, arguments, name):
    """Parses, and loads the config with its options, so that keys that do not exist are errors."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            options = parser.parse_args(arguments)
    except (SystemExit, UserError) as error:
        raise AssertionError(f"{error} {message.getvalue()}") from error
    if name not in OF_CONFIGS:
        return
    for word in arguments:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file(), f"there is no {word}"
    first = arguments[0] if arguments and arguments[0][0] != "-" else None
    if first is None or first.isupper() or first.endswith(".pth") or first.startswith("own_"):
        return
    path = ROOT / first if first.startswith("configs/") else ROOT / f"configs/{first}.py"
    assert path.is_file(), f"there is no config {first}; there are {', '.join(packaged_names())}"
    if name != "config" and getattr(options, "cfg_options", None):
        load_config(path, options.cfg_options)


def check_mim(words):
    """``mim train`` and ``mim test``: config, and options of mim; those that it passes on are MMDetection's."""
    assert words[1] in ("train", "test"), words
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openmim imports pkg_resources
        cli = importlib.import_module(f"mim.commands.{words[1]}").cli
    known = {flag for option in cli.params for flag in option.opts}
    known |= {"--work-dir", "--resume", "--cfg-options", "--tta", "--amp", "--checkpoint"}
    assert {word for word in words if word.startswith("-")} <= known
    assert words[2] in ("mmdet", "tresnet_downstream")
    assert words[3].isupper() or (ROOT / words[3]).is_file(), f"there is no {words[3]}"


def check_pip(words):
    """``pip install``: extras that exist, and folders of the repository."""
    for word in words[2:]:
        for extra in ",".join(re.findall(r"\[(.+?)\]", word)).split(","):
            assert not extra or extra in EXTRAS, f"there is no extra {extra}"
        if word.startswith("./"):
            assert (ROOT / word).is_dir()


def check(line):
    """Checks one command line."""
    words = words_of(line)
    while words[0] == "OMP_NUM_THREADS=1" or words[0] == "taskset":
        words = words[3:] if words[0] == "taskset" else words[1:]
    if words[0] == "make":
        assert words[1] in TARGETS, f"the Makefile has no target {words[1]}"
    elif words[0] == "mim":
        check_mim(words)
    elif words[0] == "pip":
        check_pip(words)
    else:
        if words[0] == "torchrun":
            start = next(i for i, word in enumerate(words) if word == "-m" or word.startswith("tools/"))
            words = ["python", *words[start:]]
        if command := command_of(words):
            check_parsed(*command)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_of_a_block_has_options_and_configs_that_exist(line):
    with mock.patch("sys.argv", ["docs"]):
        check(line)


@pytest.mark.parametrize("spans", list(inline()))
def test_commands_within_sentences_have_options_that_exist(spans):
    for span in spans:
        words = span.replace("(", "").split()
        if words[0] == "make":
            assert words[1] in TARGETS, span
        elif words[0] == "mim":
            assert words[1] in ("train", "test"), span
        else:
            words = words if words[0] in ("tresnet", "python") else ["python", *words]
            if words[0] == "tresnet" and words[1] == "COMMAND":
                continue
            if command := command_of(words):
                parser, arguments, _ = command
                unknown = {word for word in arguments if word.startswith("--")} - flags_of(parser)
                assert not unknown, f"{span}: {unknown}"


def flags_of(parser):
    """The options of a parser and of its subcommands."""
    flags = set()
    for action in parser._actions:
        flags |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            flags |= set().union(*(flags_of(below) for below in action.choices.values()))
    return flags


def test_there_are_commands_of_each_kind():
    lines = [parameter.values[0] for parameter in COMMAND_LINES]
    assert len(lines) > 100
    for start in STARTS[:6]:
        assert any(line.startswith(start) for line in lines), start


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tresnet trian digits_tresnet", "no command trian"),
        ("tresnet train digits_tresnte", "no config digits_tresnte"),
        ("tresnet train digits_tresnet --owt x", "--owt"),
        ("tresnet train digits_tresnet --cfg-options max_epoch=3", "max_epoch"),
        ("python tools/test_multilable.py", "no tools/test_multilable.py"),
        ("make dmeo", "no target dmeo"),
        ("mim train mmdet configs/none.py", "no configs/none.py"),
        ("pip install '.[exprot]'", "no extra exprot"),
    ],
)
def test_a_command_that_does_not_exist_fails_the_check(line, message):
    with pytest.raises((AssertionError, UserError), match=message):
        check(line)
