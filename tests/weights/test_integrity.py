"""Damaged files are detected, and invalid tensors are refused."""

import random
import time
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.integrity import save_safetensors
from tresnet_downstream.weights.reading import read_checkpoint


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_one_flipped_bit_among_the_values_is_found_each_time(tmp_path, suffix):
    path, values = tmp_path / f"a.{suffix}", torch.randn(50_000)
    if suffix == "pth":
        torch.save({"state_dict": {"w": values}}, path)
    else:
        save_safetensors({"w": values}, path)
    read_checkpoint(path)
    content, draw = path.read_bytes(), random.Random(0)
    start = content.index(values[:4].numpy().tobytes())
    for _ in range(60):
        damaged = bytearray(content)
        damaged[start + draw.randrange(values.nbytes)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.\w+: (is truncated or damaged|w has values)"):
            read_checkpoint(path)


@pytest.mark.parametrize("length", [1, 22, 5000, 70_000])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_bytes_behind_the_end_are_found(tmp_path, suffix, length):
    path = tmp_path / f"a.{suffix}"
    torch.save({"w": torch.ones(9)}, path) if suffix == "pth" else save_safetensors({"w": torch.ones(9)}, path)
    for more in (bytes(length), random.Random(length).randbytes(length)):
        content = path.read_bytes()
        path.write_bytes(content + more)
        with pytest.raises(UserError, match=r"is truncated or damaged"):
            read_checkpoint(path)
        path.write_bytes(content)
    read_checkpoint(path)


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"w": torch.zeros(2**24)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as stored,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    start = time.monotonic()
    with pytest.raises(UserError, match=r"b\.pth: unpacks to [\d,]+ bytes.*TRESNET_MAX_EXPANSION"):
        read_checkpoint(tmp_path / "b.pth")
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize("wrapping", ["state_dict", "averaged_state_dict", "model"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, wrapping, value):
    torch.save({wrapping: {"a.running_var": torch.tensor([1.0, value])}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: a\.running_var has values that are NaN or infinite"):
        read_checkpoint(tmp_path / "a.pth")
    with pytest.raises(UserError, match="NaN or infinite"):
        save_safetensors({"w": torch.tensor([value])}, tmp_path / "b.safetensors")


def test_large_finite_values_are_read(tmp_path):
    torch.save({"w": torch.full((9,), torch.finfo(torch.float64).max, dtype=torch.float64)}, tmp_path / "a.pth")
    assert len(read_checkpoint(tmp_path / "a.pth")["w"]) == 9


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3, dtype=torch.complex64),
        torch.eye(3).to_sparse(),
    ],
    ids=["float8", "bool", "complex", "sparse"],
)
def test_tensors_that_no_network_has_are_refused_by_name(tmp_path, tensor):
    torch.save({"state_dict": {"w": tensor}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: .*"):
        read_checkpoint(tmp_path / "a.pth")


def test_names_that_no_file_and_no_encoding_takes_are_refused(tmp_path):
    torch.save({"state_dict": {"\ud800": torch.ones(3)}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"cannot be encoded|damaged"):
        read_checkpoint(tmp_path / "a.pth")
    for name in ("a" * 5000, "a\0b", "\ud800"):
        with pytest.raises(UserError, match="no such checkpoint"):
            read_checkpoint(name)


def test_equal_weights_are_equal_safetensors_files(tmp_path):
    weights = {"stem.wäight": torch.ones(3), "b": torch.zeros(2, 2)}
    contents = set()
    for number in range(8):  # the package orders its metadata at random
        path = tmp_path / f"{number}.safetensors"
        save_safetensors(weights, path)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    assert load_file(path).keys() == weights.keys()
