"""Seeded damage: mutated files are read, or refused by one short UserError; TRESNET_MUTATIONS sets how many."""

import io
import os
import random
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes
from test_jpeg import photograph

from tresnet_downstream.errors import UserError
from tresnet_downstream.pictures import read_image
from tresnet_downstream.weights.reading import read_checkpoint

COUNT = int(os.environ.get("TRESNET_MUTATIONS", "150"))
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


def mutated(content, draw):
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 20))):
        place = draw.randrange(len(damaged)) if draw.random() < 0.6 else draw.randrange(min(200, len(damaged)))
        change = draw.randrange(4)
        if change == 0:
            damaged[place] ^= 1 << draw.randrange(8)
        elif change == 1:
            damaged[place] = draw.choice((0, 255, draw.randrange(256)))
        elif change == 2:
            del damaged[place : place + draw.randrange(1, 9)]
        else:
            damaged[place:place] = damaged[place : place + draw.randrange(1, 9)]
        if not damaged:
            break
    return bytes(damaged[: draw.randrange(len(damaged) + 1)] if draw.random() < 0.15 else damaged)


def read_all(kind, folder, count):
    content, draw, refused, longest = original(kind), random.Random(kind), 0, 0
    read = read_checkpoint if kind in ("pth", "safetensors") else read_image
    path = os.path.join(folder, f"a.{kind}")
    for _ in range(count):
        with open(path, "wb") as file:
            file.write(mutated(content, draw))
        start = time.monotonic()
        try:
            read(path)
        except UserError as error:
            refused, longest = refused + 1, max(longest, len(str(error)))
        assert time.monotonic() - start < 20
    assert longest <= 500
    return refused


@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited by resource.setrlimit")
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused_in_2_gib(kind, tmp_path):
    code = (
        "import sys, test_mutations, resource\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**31,) * 2)\n"
        f"print(test_mutations.read_all({kind!r}, sys.argv[1], {COUNT}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60 + COUNT // 2, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > COUNT // 10


def test_the_originals_are_read(tmp_path):
    for kind in KINDS:
        (tmp_path / f"a.{kind}").write_bytes(original(kind))
    assert read_checkpoint(tmp_path / "a.pth")["meta"]["classes"] == ["a", "b"]
    assert len(read_checkpoint(tmp_path / "a.safetensors")["w"]) == 300
    assert read_image(tmp_path / "a.png").shape == read_image(tmp_path / "a.jpg").shape == (64, 96, 3)
    assert Image.open(tmp_path / "a.progressive.jpg").info["progressive"]
