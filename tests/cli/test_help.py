"""Help is fast: it imports no package that takes long to import."""

import subprocess
import sys

import pytest
from cli.without_torch import run_without

from tresnet_downstream.cli.main import COMMANDS

MORE = ("matplotlib", "scipy", "sklearn", "onnxruntime", "openvino", "pycocotools", "timm", "huggingface_hub")


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_needs_no_heavy_package(command):
    done = run_without(*([] if command is None else [command]), "--help", more=MORE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: tresnet {command or 'COMMAND'}")


def test_importing_the_package_imports_no_other():
    script = "import sys; before = set(sys.modules); import tresnet_downstream; print(set(sys.modules) - before)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "tresnet_downstream" in out
    assert not {"numpy", "torch", "mmengine", "PIL", "cv2"} & set(out.replace("'", " ").split())
