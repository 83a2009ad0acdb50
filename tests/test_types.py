"""How far the types of the package go: which packages mypy checks strictly, and how many lines have `Any`."""

import re
import sys
from pathlib import Path

import pytest

import tresnet_downstream

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LIBRARY = Path(tresnet_downstream.__file__).parent
SETTINGS = tomllib.loads((LIBRARY.parent / "pyproject.toml").read_text())["tool"]["mypy"]
# Lines with the name `Any`, imports included, in each folder and in the modules that stand in no folder ("."). `Any` is
# meant for values of configs alone. A number may only fall.
LINES_WITH_ANY = {
    ".": 37,
    "backbones": 91,
    "benchmark": 37,
    "classification": 203,
    "cli": 26,
    "data_check": 22,
    "deployment": 84,
    "detection": 128,
    "evaluation": 142,
    "exported": 17,
    "formats": 11,
    "joint": 48,
    "prediction": 9,
    "running": 252,
    "weights": 39,
}


def lines_with_any(folder):
    paths = folder.glob("*.py") if folder == LIBRARY else folder.rglob("*.py")
    return sum(bool(re.search(r"\bAny\b", line)) for path in paths for line in path.read_text().splitlines())


def folders():
    return {".": LIBRARY, **{path.parent.name: path.parent for path in sorted(LIBRARY.glob("*/__init__.py"))}}


def test_these_packages_are_strict():
    (strict,) = [part for part in SETTINGS["overrides"] if part.get("disallow_any_generics")]
    names = {name.split(".")[1] for name in strict["module"]}
    assert names >= {"benchmark", "cli", "exported", "formats", "weights"}
    assert names <= set(folders()) | {path.stem for path in LIBRARY.glob("*.py")}


def test_every_folder_has_its_number():
    assert set(LINES_WITH_ANY) == set(folders())


@pytest.mark.parametrize("name", sorted(LINES_WITH_ANY))
def test_lines_with_any_only_become_fewer(name):
    lines = lines_with_any(folders()[name])
    assert lines <= LINES_WITH_ANY[name], f"{name}: type what is new, {lines} lines have `Any`"
    assert lines == LINES_WITH_ANY[name], f"{name}: write {lines} into LINES_WITH_ANY, so that the number stays low"
