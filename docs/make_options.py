"""Writes the table of all options of all commands: python docs/make_options.py."""

import argparse
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tresnet_downstream.cli.main import COMMANDS
from tresnet_downstream.wording import of_command

PAGE = Path(__file__).parent / "options.md"
START = """# Options of the commands

The commands of `tresnet`, and the scripts of `tools/` in a clone, which call the same functions:

- `tresnet train` is `tools/train.py` and, for one task each, `train_multilabel.py`, `train_classifier.py`,
  `train_detection.py` and `train_joint.py`;
- `tresnet score` is `tools/test.py` and, for one task each, `test_multilabel.py`, `test_classifier.py`,
  `test_detection.py` and `test_joint.py`;
- `tresnet check` is `check_data.py`, `tresnet maps` is `check_maps.py`, and the other scripts have the command's name;
- `demo` and `config` are commands of `tresnet` alone.

`--size`, `--batch-size`, `--workers`, `--seed` and `--threshold` of `train` and `score` set config keys:

| | classifiers | detectors, and labels with boxes |
|---|---|---|
| `--size` | `image_size` | refused: the pipelines set the size |
| `--batch-size` | `batch_size` | `batch_size` of `train_dataloader`; in `score` of the loader of `--split` |
| `--workers` | `num_workers` | `num_workers` of the same loader, and of the validation loader |
| `--seed` | `seed` | `randomness.seed` |
| `--threshold` | `threshold`, of several labels | `labels.threshold`, with boxes alone refused |

Every other key is set by `--cfg-options KEY=VALUE`; `tresnet config CONFIG` prints all keys of a config with their
meaning. An option and `--cfg-options` that set the same key are refused.

`docs/make_options.py` writes this page from the commands' own help.

| option | of | meaning |
|---|---|---|
"""


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
