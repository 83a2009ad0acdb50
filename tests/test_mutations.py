"""Seeded damage: mutated files are read, or refused by one short UserError; TRESNET_MUTATIONS sets how many."""

import io
import os
import sys

import pytest
import torch
from hostile import flipped, in_little_memory, seeded, try_all
from PIL import Image
from safetensors.torch import save as safetensors_bytes
from test_jpeg import photograph

from tresnet_downstream.pictures import read_image
from tresnet_downstream.weights.reading import read_checkpoint

COUNT = int(os.environ.get("TRESNET_MUTATIONS", "150"))
pytestmark = pytest.mark.faults
KINDS = ("png", "jpg", "progressive.jpg", "pth", "safetensors")


def original(kind):
    stream = io.BytesIO()
    if kind == "pth":
        torch.save({"state_dict": {"w": torch.arange(300.0)}, "meta": {"classes": ["a", "b"]}}, stream)
    elif kind == "safetensors":
        return safetensors_bytes({"w": torch.arange(300.0)})
    else:
        form = "PNG" if kind == "png" else "JPEG"
        photograph(96, 64).save(stream, form, progressive=kind.startswith("progressive"))
    return stream.getvalue()


def prepare():
    """Loads what readers import late, before memory is limited."""
    for kind in KINDS:
        original(kind)


def read_all(kind, folder, count):
    content, draw = original(kind), seeded(kind)
    read = read_checkpoint if kind in ("pth", "safetensors") else read_image
    path = os.path.join(folder, f"a.{kind}")

    def attempt(number):
        with open(path, "wb") as file:
            file.write(flipped(content, draw))
        read(path)

    return try_all(attempt, count)


@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited by resource.setrlimit")
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused_in_2_gib(kind, tmp_path):
    call = f"read_all({kind!r}, sys.argv[1], {COUNT})"
    refused, _ = in_little_memory("test_mutations", call, tmp_path, 60 + COUNT // 2)
    assert refused > COUNT // 10


def test_the_originals_are_read(tmp_path):
    for kind in KINDS:
        (tmp_path / f"a.{kind}").write_bytes(original(kind))
    assert read_checkpoint(tmp_path / "a.pth")["meta"]["classes"] == ["a", "b"]
    assert len(read_checkpoint(tmp_path / "a.safetensors")["w"]) == 300
    assert read_image(tmp_path / "a.png").shape == read_image(tmp_path / "a.jpg").shape == (64, 96, 3)
    assert Image.open(tmp_path / "a.progressive.jpg").info["progressive"]
