"""Every Python block of the documentation runs, in the order of its page, or says why it is not run."""

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest
from docs.pages import PAGES, ROOT, blocks, name_of
from mmdet import registry as mmdet_registry
from running.small_data import call

from tresnet_downstream import registry
from tresnet_downstream.deployment import formats as deployment_formats
from tresnet_downstream.digits import make_digits
from tresnet_downstream.evaluation.report.registry import SECTIONS
from tresnet_downstream.exported import formats as exported_formats
from tresnet_downstream.formats import FORMATS
from tresnet_downstream.running.config import load_config

PYTHON = {name_of(page): [block for block in blocks(page) if block.language == "python"] for page in PAGES}
PYTHON = {name: found for name, found in PYTHON.items() if found}
NOT_RUN = [block for found in PYTHON.values() for block in found if block.reason]
# A block that begins with the name of a file is that file.
FILE = re.compile(r"# (own_\w+)\.py\n")
FILES = {match[1]: block.text for found in PYTHON.values() for block in found if (match := FILE.match(block.text))}
# What a training needs to be small.
SMALL = ["batch_size=8", "num_workers=0", "max_epochs=1", "model.backbone.layers=(1,1,1,1)", "image_size=64"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, trained_detector):
    """A folder with what the examples name: configs, sample data, images, checkpoints of each task."""
    folder = tmp_path_factory.mktemp("docs") / "work"
    shutil.copytree(ROOT / "configs", folder / "configs")
    make_digits(folder / "data/digits", train=12, val=6, size=64)
    (folder / "images").mkdir()
    shutil.copy(folder / "data/digits/val/000001.jpg", folder / "images/1.jpg")
    work_dir = folder / "work_dirs/digits_tresnet"
    options = [f"data_root={folder / 'data/digits'}", *SMALL]
    arguments = [ROOT / "configs/digits_tresnet.py", "--work-dir", work_dir, "--cfg-options", *options]
    status, _, err = call("train_multilabel", arguments)
    assert status == 0, err
    shutil.copy(work_dir / "best.pth", folder / "best.pth")
    shutil.copy(sorted(trained_detector[0].glob("epoch_*.pth"))[-1], folder / "detector.pth")
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _as_before():
    """What the examples register, replace or import is unknown to the next page."""
    registries = [each for module in (registry, mmdet_registry) for each in vars(module).values()]
    registries = [each for each in registries if isinstance(each, registry.Registry)]
    before = [(each, dict(each.module_dict)) for each in registries]
    tables = [(module, name, getattr(module, name)) for module, name in TABLES]
    dictionaries = [(each, dict(each)) for each in (FORMATS, SECTIONS)]
    path = list(sys.path)
    yield
    for each, components in before:
        each._module_dict.clear()
        each._module_dict.update(components)
    for module, name, table in tables:
        setattr(module, name, table)
    for each, content in dictionaries:
        each.clear()
        each.update(content)
    sys.path[:] = path
    for name in FILES:
        sys.modules.pop(name, None)


TABLES = ((deployment_formats, "FORMATS"), (exported_formats, "SESSIONS"))


def run(block, number, namespace):
    """Runs a block: a file is imported, a config is loaded, and anything else is executed."""
    if match := FILE.match(block.text):
        namespace |= {name: value for name, value in vars(importlib.import_module(match[1])).items() if name[0] != "_"}
    elif block.text.startswith("_base_"):
        folder = Path() if '"configs/' in block.text else Path("configs")
        path = folder / f"example_{number}.py"
        path.write_text(block.text)
        load_config(path)
    else:
        place = f"{block.page}, line {block.line}"
        exec(compile("\n" * (block.line - 1) + block.text, place, "exec"), namespace)


@pytest.mark.parametrize("page", PYTHON)
@pytest.mark.slow
def test_the_python_blocks_of_a_page_run_in_their_order(page, workplace, tmp_path, monkeypatch):
    if all(block.reason for block in PYTHON[page]):
        pytest.skip("no block of the page is run")
    shutil.copytree(workplace, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    namespace = {"__name__": "example"}
    for number, block in enumerate(PYTHON[page]):
        if not block.reason:
            run(block, number, namespace)


def test_a_block_that_fails_fails_the_test():
    block = next(block for block in PYTHON["docs/python.md"] if not block.reason)
    with pytest.raises(ZeroDivisionError):
        run(type(block)(block.page, "python", 1, "1 / 0\n", ""), 0, {})


def test_blocks_that_are_not_run_are_few_and_are_python():
    listed = "\n".join(f"{block.page}, line {block.line}: {block.reason}" for block in NOT_RUN)
    print(f"{len(NOT_RUN)} of {sum(map(len, PYTHON.values()))} Python blocks are not run:\n{listed}")
    assert len(NOT_RUN) == 6, listed
    for block in NOT_RUN:
        compile(block.text, f"{block.page}, line {block.line}", "exec")


def test_a_packed_file_of_the_exported_format_page_predicts_like_torch(workplace, monkeypatch):
    """The example writes and opens a file: its format is one like the others."""
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(workplace))
    importlib.import_module("own_export")
    from tresnet_downstream import load_model, predict
    from tresnet_downstream.deployment.classifier import ExportableClassifier
    from tresnet_downstream.deployment.export import export
    from tresnet_downstream.exported import open_exported

    export(ExportableClassifier(load_model("best.pth")), "model.packed")
    expected = predict(load_model("best.pth"), ["images/1.jpg"])
    assert predict(open_exported("model.packed"), ["images/1.jpg"]) == pytest.approx(expected, abs=1e-5)
