"""Messages of the library name parameters; a command replaces them by its own options."""

import ast
import re
from pathlib import Path

import pytest

import tresnet_downstream
from tresnet_downstream.command_line import Parser, run
from tresnet_downstream.errors import UserError
from tresnet_downstream.wording import worded

LIBRARY = Path(tresnet_downstream.__file__).parent
# They are the command line, call it, or show it on a page.
COMMANDS = {
    LIBRARY / "command_line.py",
    *(LIBRARY / "cli").glob("*.py"),
    *(LIBRARY / "reproduction").glob("*.py"),
}
OTHERS = ("pip install --upgrade", "docker run --shm-size", "docker run --pids-limit")


def texts(path):
    """The texts of a module but for docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_message_of_the_library_names_an_option_of_a_tool():
    named = [
        f"{path.relative_to(LIBRARY)}:{line}: {text.strip()}"
        for path in sorted(LIBRARY.rglob("*.py"))
        if path not in COMMANDS
        for line, text in texts(path)
        if re.search(r"(?<![\w-])--[a-z]", text) and not any(other in text for other in OTHERS)
    ]
    assert not named, "\n".join(named)


def tool(message, *options):
    def main(arguments):
        parser = Parser()
        for option in options:
            parser.add_argument(option)
        parser.parse_args(arguments)
        print(worded(f"notice: {message}"))
        raise UserError(message)

    return main


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`batch_size` 0: give 1 or more", "--batch-size 0: give 1 or more"),
        ("give `input_size`", "give --size"),
        ("name it with `config`", "name it with `config`"),
        ("torch says `weight` is wrong", "torch says `weight` is wrong"),
    ],
)
def test_a_tool_shows_its_own_options_and_leaves_other_words_in_backticks_alone(message, shown, capsys):
    assert run(tool(message, "--batch-size", "--size"), []) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (f"notice: {shown}\n", f"error: {shown}\n")


def test_a_subcommand_shows_its_options_and_the_next_command_knows_nothing_of_them(capsys):
    def main(arguments):
        parser = Parser()
        parser.add_subparsers().add_parser("measure").add_argument("--repeats")
        parser.parse_args(arguments)
        raise UserError("`repeats` 0")

    assert run(main, ["measure"]) == 2
    assert capsys.readouterr().err == "error: --repeats 0\n"
    assert worded("`repeats` 0") == "`repeats` 0"
