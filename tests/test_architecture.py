"""docs/architecture.md, the contracts of import-linter and the imports of the code agree."""

import ast
import re
import sys
from pathlib import Path

import grimp
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = "tresnet_downstream"
TEXT = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
FOLDERS = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}


def drawn_layers():
    """The lines of the drawing, from the top: for each, the names of its folders and modules."""
    drawing = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL).group(1)
    lines = [re.findall(r"(\w+)(?:/|\.py)", line) for line in drawing.splitlines()]
    return [set(names) for names in lines if names]


def table():
    """The rows of the table of folders: for each folder, the text of what it holds and of what it may import."""
    lines = TEXT.split("| folder |")[1].splitlines()[2:]
    rows = [line.strip("|").split("|") for line in lines[: lines.index("")]]
    return {name.strip().strip("`").rstrip("/"): (holds.strip(), imports.strip()) for name, holds, imports in rows}


def place(module):
    """The folder of a module, or its name if it stands in no folder."""
    name = module.removeprefix(PACKAGE).removeprefix(".").split(".")[0]
    return name or "__init__"


@pytest.fixture(scope="module")
def imports():
    """For each folder, and each module that stands in no folder, those that it imports."""
    modules = grimp.build_graph(PACKAGE)
    places = {}
    for module in modules.modules:
        imported = {place(other) for other in modules.find_modules_directly_imported_by(module)}
        places.setdefault(place(module), set()).update(imported - {place(module)})
    return places


def names_in(text):
    return set(re.findall(r"`(\w+)/`", text))


def test_the_drawing_and_the_table_name_every_folder():
    assert set().union(*drawn_layers()) - {"command_line", "__main__", "__init__"} == FOLDERS
    assert set(table()) >= FOLDERS
    assert not [name for name in set(table()) - FOLDERS if not (ROOT / name).is_dir()]


def test_imports_lead_from_a_layer_to_a_lower_one(imports):
    layers = drawn_layers()
    heights = {name: len(layers) - index for index, names in enumerate(layers) for name in names}

    def is_allowed(name, other):
        height, other_height = heights.get(name, 0), heights.get(other, 0)
        # The modules that stand in no folder import one another, and so do those of the uppermost line.
        return height > other_height or height == other_height in (0, len(layers))

    upwards = [
        f"{name} imports {other}" for name, others in imports.items() for other in others if not is_allowed(name, other)
    ]
    assert not upwards, "\n".join(sorted(upwards))


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_the_table_names_what_a_folder_imports(folder, imports):
    _, may_import = table()[folder]
    if may_import == "every folder":
        return
    assert imports[folder] & FOLDERS == names_in(may_import)


@pytest.mark.parametrize("folder", ["tools", "mmcv_ext"])
def test_the_table_names_what_the_folders_beside_the_package_import(folder):
    imported = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
                imported.add(place(node.module))
            elif isinstance(node, ast.Import):
                imported.update(place(name.name) for name in node.names if name.name.split(".")[0] == PACKAGE)
    assert imported == set(re.findall(r"`(\w+)(?:/|\.py)`", table()[folder][1]))


def test_import_linter_holds_the_drawn_layers():
    contract = CONTRACTS["Layers: a folder imports folders of lower layers only"]
    layers = [set(line.replace(f"{PACKAGE}.", "").split(" | ")) for line in contract["layers"]]
    assert layers == [names & FOLDERS for names in drawn_layers()]


def test_import_linter_keeps_torch_out_of_the_folders_that_say_so():
    contract = CONTRACTS["No torch: evaluation, prediction and exported files"]
    assert {place(module) for module in contract["source_modules"]} == {
        folder for folder, (holds, _) in table().items() if "*no torch*" in holds
    }
    assert {"torch", "mmengine", "mmdet", "albumentations"} <= set(contract["forbidden_modules"])


def test_import_linter_keeps_the_command_line_out_of_every_folder_but_cli():
    contract = CONTRACTS["Only cli/ parses a command line"]
    assert {place(module) for module in contract["source_modules"]} == FOLDERS - {"cli"}


def test_the_tests_of_a_folder_stand_in_the_folder_of_the_same_name():
    tested = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert tested >= FOLDERS
    # Tests of folders beside the package, and of trainings that are killed or run out of disk.
    assert tested - FOLDERS == {"benchmarks", "data", "docs", "faults", "mmcv_ext"}
