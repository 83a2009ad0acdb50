"""The examples in docstrings run, and print what the docstrings show.

The examples of one module are one test: ``pytest tests/test_docstring_examples.py -k backbones``. Each module runs in
an empty folder, with the seed 0.
"""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import tresnet_downstream

PACKAGE = Path(tresnet_downstream.__file__).parent
# Distributions of `project.optional-dependencies` that a module may import. Its examples are skipped without them.
OPTIONAL = {"mmdet", "mmcv", "onnx", "onnxruntime", "openvino", "nncf", "timm", "pytorch_grad_cam", "imagehash"}


def modules_with_examples():
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_the_examples_in_docstrings_run_and_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{name} needs {error.name}")
    failed, attempted = doctest.testmod(
        module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert attempted, f"{name}: doctest finds none of its examples"
    assert not failed
