"""Writes the table of all options of all commands: python docs/make_options.py."""

import argparse
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tresnet_downstream.cli.main import COMMANDS
from tresnet_downstream.wording import of_command

PAGE = Path(__file__).parent / "options.md"
START = """# Options of the commands

The options of `tresnet` and of the scripts of `tools/` in a clone, which call the same functions:

| command | scripts |
|---|---|
| `tresnet train` | `tools/train.py`; for one task each `train_multilabel.py`, `train_classifier.py`, `train_detection.py`, `train_joint.py` |
| `tresnet score` | `tools/test.py`; for one task each `test_multilabel.py`, `test_classifier.py`, `test_detection.py`, `test_joint.py` |
| `tresnet check` | `tools/check_data.py` |
| `tresnet maps` | `tools/check_maps.py` |
| `tresnet demo`, `tresnet digits`, `tresnet config` | none |
| all others | the script with the name of the command |

Some options of `train` and `score` set config keys:

| option | key of classifiers | key of detectors and joint models |
|---|---|---|
| `--size` | `image_size` | refused: the pipelines set the size |
| `--batch-size` | `batch_size` | `batch_size` of `train_dataloader`; in `score` of the loader of `--split` |
| `--workers` | `num_workers` | `num_workers` of the same loader, and of the validation loader |
| `--seed` | `seed` | `randomness.seed` |
| `--threshold` | `threshold`, with several labels | `labels.threshold`; refused for boxes alone |

`--cfg-options KEY=VALUE` sets every other key ([Config keys](config_keys.md)). It is an error if an option and `--cfg-options`
set the same key.

`docs/make_options.py` writes this page from the help of the commands.

## All options

| option | commands | meaning |
|---|---|---|
"""  # noqa: E501 - rows of a table


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser of every command and subcommand, by name."""
    for name, command in COMMANDS.items():
        with of_command(f"tresnet {name}"):
            parser = import_module(f"tresnet_downstream.cli.{command.module}").parser()
            yield name, parser
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction):
                    yield from ((f"{name} {each}", below) for each, below in action.choices.items())


def page() -> str:
    """The page, from the parsers."""
    rows: dict[str, dict[str, list[str]]] = {}
    for name, parser in parsers():
        formatter = parser._get_formatter()
        for action in parser._actions:
            if not action.option_strings or isinstance(action, argparse._HelpAction):
                continue
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            meaning = formatter._expand_help(action).replace("|", "\\|") if action.help else ""
            rows.setdefault(flags, {}).setdefault(meaning, []).append(name)
    lines = [
        f"| {flags} | {', '.join(names)} | {meaning} |"
        for flags, meanings in sorted(rows.items())
        for meaning, names in meanings.items()
    ]
    return START + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
