"""Memory measurement and batch size search on the CPU, and on a simulated GPU. No test needs a GPU."""

import pytest
import torch

from tresnet_downstream.benchmark import devices
from tresnet_downstream.benchmark.devices import Cpu, Cuda, available_memory, device_named, largest_batch
from tresnet_downstream.errors import UserError

MIB = 2**20


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 288, 511, 512, 513])
def test_bisection_finds_the_largest_batch_in_few_trials(limit):
    tried = []

    def fits(count):
        tried.append(count)
        return count <= limit

    assert largest_batch(fits) == limit
    assert len(tried) == len(set(tried)) <= 20


def test_bisection_stops_at_the_given_batch_size():
    assert largest_batch(lambda count: True, 300) == 300
    assert largest_batch(lambda count: count <= 290, 300) == 290


@pytest.mark.slow
def test_gpu_that_runs_out_of_memory_answers_no(monkeypatch):
    """Without a GPU: torch's own error, raised by a step that takes more than there is."""
    gpu = Cuda.__new__(Cuda)
    monkeypatch.setattr(gpu, "synchronise", lambda: None, raising=False)

    def step(count):
        if count > 37:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_batch(gpu.fitting(step, needed=len)) == 37

    def broken(count):
        raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        gpu.fitting(broken, needed=len)(1)


def test_cpu_predicts_batches_that_do_not_fit(monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda: 100 * MIB)
    fits = Cpu().fitting(step=len, needed=lambda count: (10 + 2 * count) * MIB if count < 5 else len(count))
    assert largest_batch(fits) == 45


def test_cpu_with_unknown_memory_tries_every_batch(monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda: None)
    assert Cpu().fitting(step=len, needed=len)(10**9)


def test_available_memory_is_that_of_this_machine():
    available = available_memory()
    assert available is None or 2**20 < available < 2**50


def test_bytes_kept_and_peak_of_the_cpu():
    def work():
        once = torch.empty(5 * MIB, dtype=torch.uint8)
        return torch.empty(2 * MIB, dtype=torch.uint8), once[:1].clone()

    assert Cpu().bytes_kept(work) == 2 * MIB + 1
    assert Cpu().peak_bytes(work, tuple) == 7 * MIB + 1


@pytest.mark.parametrize("name", ["meta", "mps"])
def test_other_devices_are_refused(name):
    with pytest.raises(UserError, match=f"`device` {name}: the benchmark supports only cpu and cuda"):
        device_named(name)


def test_compiled_form_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    assert "C++ compiler" in Cpu().missing_compiler()
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert Cpu().missing_compiler() is None
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    assert "Triton" in Cuda.missing_compiler(Cuda.__new__(Cuda))
