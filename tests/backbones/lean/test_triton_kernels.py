"""Runs triton_kernel_cases.py in new processes, because Triton reads environment variables when it is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.backbones.lean import acceleration

CASES = Path(__file__).with_name("triton_kernel_cases.py")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not there: torch brings it on Linux, with CUDA"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def passes(**environment):
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES), **environment)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@needs_triton
@pytest.mark.slow
def test_kernels_equal_torchs_operators_in_the_interpreter():
    passes(TRITON_INTERPRET="1")


@needs_triton
@needs_gpu
@pytest.mark.slow
def test_kernels_equal_torchs_operators_on_the_gpu():
    passes(TRITON_INTERPRET="0")


COMPILE = """
import re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tresnet_downstream.backbones.lean import triton_programs as programs

TILE = {"channels": 64, "PIXELS": 32, "COLUMNS": 64, "NEGATIVE_SLOPE": 0.01}
GRADIENT = {**TILE, "x_ptr": None, "BLURRED": True}
VARIANTS = [
    (programs.line_kernel, TILE),
    (programs.line_and_blur_kernel, TILE),
    (programs.sums_kernel, {**GRADIENT, "SPAN": 512, "passed_ptr": None}),
    (programs.sums_kernel, {**GRADIENT, "SPAN": 512, "BLURRED": False}),
    (programs.grad_line_kernel, GRADIENT),
    (programs.grad_line_kernel, {**GRADIENT, "BLURRED": False, "bend_ptr": None}),
]
WIDE = {"slope_ptr", "offset_ptr", "factor_ptr", "bend_ptr", "centre_ptr", "partial_ptr"}
for kernel, constants in VARIANTS:
    types = {name: "i32" for name in kernel.arg_names}
    types |= {name: "*fp32" if name in WIDE else "*bf16" for name in types if name.endswith("_ptr")}
    types |= dict.fromkeys(constants, "constexpr")
    places = {name: index for index, name in enumerate(kernel.arg_names)}
    aligned = {(places[name],): [["tt.divisibility", 16]] for name, kind in types.items() if kind.startswith("*")}
    source = ASTSource(kernel, types, {(places[name],): value for name, value in constants.items()}, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options={"num_warps": 8})
    assert compiled.asm["cubin"]
    moved = set(re.findall("(?:ld|st).global[.a-z0-9]*b16", compiled.asm["ptx"]))
    assert not moved, (kernel.__name__, "moves single numbers of 16 bits", moved)
    print(kernel.__name__)
"""


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
@pytest.mark.parametrize("architecture", ["80", "90"])
def test_kernels_compile_without_a_gpu_and_move_128_bits_at_once(architecture, tmp_path):
    done = run("-c", COMPILE, architecture, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(done.stdout.split()) == 6


def test_a_cpu_takes_torchs_operators_and_never_imports_triton():
    code = """
import sys
sys.modules.update(accelerate=None, transformers=None)  # MMEngine imports what it finds of these; they bring Triton
import torch
from tresnet_downstream.backbones import TResNet
TResNet(layers=(1, 1, 1, 1), width=0.125)(torch.rand(2, 3, 64, 64))[-1].sum().backward()
print("tresnet_downstream.backbones.lean.triton_kernels" in sys.modules, "triton.language" in sys.modules)
"""
    done = run("-c", code)
    assert done.stdout.split()[-2:] == ["False", "False"], done.stdout + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(("value", "on"), [("0", "False"), ("1", "True")])
def test_an_environment_variable_turns_the_kernels_off(value, on):
    code = "from tresnet_downstream.backbones.lean import acceleration; print(acceleration._Switch.on)"
    assert run("-c", code, TRESNET_TRITON=value).stdout.split() == [on]


@pytest.fixture
def forced(monkeypatch):
    monkeypatch.setattr(acceleration, "DEVICES", ["cpu"])
    monkeypatch.setattr(acceleration, "_proofs", {})
    acceleration._module.cache_clear()
    yield
    acceleration._module.cache_clear()


def small_step():
    network = TResNet(layers=(1, 1, 1, 1), width=0.125).to(memory_format=torch.channels_last)
    network(torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last))[-1].sum().backward()


def test_without_triton_torchs_operators_are_used_without_a_warning(forced, monkeypatch, recwarn):
    monkeypatch.setitem(sys.modules, "triton", None)
    small_step()
    assert not recwarn


@needs_triton
def test_if_triton_cannot_be_imported_torchs_operators_are_used_with_one_warning(forced, monkeypatch):
    def broken(name):
        raise AttributeError(f"{name} is broken")

    monkeypatch.setattr(acceleration, "import_module", broken)
    with pytest.warns(UserWarning, match=r"Triton cannot be imported, .*triton_kernels is broken") as caught:
        small_step()
    assert len(caught) == 1


@needs_triton
def test_if_triton_does_not_work_torchs_operators_are_used_with_one_warning(forced):
    # Not in the interpreter: there is no GPU for these tensors of the CPU.
    with pytest.warns(UserWarning, match=r"Triton's kernels do not work on cpu in torch.float32, .*: line") as caught:
        small_step()
    assert len(caught) == 1
