"""The places of a catalogue entry are tried in order: refusing servers, and mirrors with right and wrong files."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from weights.server import Server

from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.errors import LONGEST_MESSAGE, UserError
from tresnet_downstream.weights import catalogue
from tresnet_downstream.weights.catalogue import CATALOGUE, IMAGENET_1K, Place, PublicWeight
from tresnet_downstream.weights.formats import to_release
from tresnet_downstream.weights.mirror import fill_mirror
from tresnet_downstream.weights.public_files import locate

TOOL = Path(__file__).parents[2] / "tools" / "weights.py"


def file_of_network(path, num_classes=7, width=0.25):
    """A file of a release; gives its size in MB, as the catalogue has it."""
    backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": width}
    model = ImageClassifier(backbone, {"type": "LinearHead", "num_classes": num_classes})
    torch.save({"model": to_release(model.state_dict())}, path)
    return sum(4 * tensor.numel() for tensor in model.state_dict().values()) / 1e6


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server without files; ``small`` of the catalogue lies there, and nowhere in a cache."""
    monkeypatch.setenv("TRESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRESNET_TIMEOUT", "20")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRESNET_MIRROR", raising=False)
    server = Server(b"")
    server.mode = "paths"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.root = server.url.removesuffix("/zoo/net.pth")
    places = (Place(f"{server.root}/release/net.pth"), Place(f"{server.root}/second/old.pth"))
    size = file_of_network(tmp_path / "net.pth")
    entry = PublicWeight(places, "m", IMAGENET_1K, 7, 224, "crop", size)
    monkeypatch.setitem(CATALOGUE, "small", entry)
    server.right = (tmp_path / "net.pth").read_bytes()
    yield server
    server.shutdown()
    server.server_close()


def test_name_is_fetched_once_from_its_first_place_that_answers(server, capsys):
    server.contents = {"/release/net.pth": 403, "/second/old.pth": server.right}
    path = locate("small")
    assert path.read_bytes() == server.right
    assert capsys.readouterr().out == (
        f"small: fetched from {server.root.removeprefix('http://')}, since "
        f"{server.root.removeprefix('http://')}: the server answers 403 Forbidden\n"
    )
    asked = list(server.paths)
    assert locate("tresnet://small") == path
    assert server.paths == asked
    assert not capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"num_classes": 8}, {"width": 0.3}])
def test_release_refuses_first_mirror_has_a_wrong_file_second_the_right_one(
    server, tmp_path, monkeypatch, capsys, wrong
):
    file_of_network(tmp_path / "wrong.pth", **wrong)
    server.contents = {
        "/release/net.pth": 403,
        "/mirror/1/net.pth": (tmp_path / "wrong.pth").read_bytes(),
        "/mirror/2/net.pth": server.right,
    }
    monkeypatch.setenv("TRESNET_MIRROR", f"{server.root}/mirror/1, {server.root}/mirror/2/")
    path = locate("small")
    assert path.read_bytes() == server.right
    assert server.paths == ["/mirror/1/net.pth", "/mirror/1/old.pth", "/mirror/2/net.pth"]
    told = capsys.readouterr().out
    assert "is another file: " in told
    assert "404 Not Found" in told
    assert told.count("\n") == 1
    assert not list((tmp_path / "cache").rglob("*.partial"))
    monkeypatch.delenv("TRESNET_MIRROR")
    assert locate("small") == path


def test_all_places_refuse_in_one_line_that_lists_their_answers(server, tmp_path, monkeypatch):
    server.contents = {"/release/net.pth": 403, "/second/old.pth": b"<html>", "/mirror/net.pth": 500}
    monkeypatch.setenv("TRESNET_MIRROR", f"{tmp_path / 'nowhere'},{server.root}/mirror")
    with pytest.raises(UserError) as raised:
        locate("small")
    message = str(raised.value)
    assert message.startswith(
        f"small: cannot be fetched from any place ({tmp_path / 'nowhere' / 'net.pth'}: no such file; "
    )
    for answer in ("500", "404", "403 Forbidden", "is not a weight file"):
        assert answer in message
    assert len(message) <= LONGEST_MESSAGE
    assert "\n" not in message


def test_published_checksum_decides_where_there_is_one(server, monkeypatch):
    place = Place(f"{server.root}/release/net.pth", sha256="0123abcd")
    monkeypatch.setitem(CATALOGUE, "small", PublicWeight((place,), "m", IMAGENET_1K, 7, 224, "crop", 1))
    server.contents = {"/release/net.pth": server.right}
    with pytest.raises(UserError, match="not with 0123abcd as published"):
        locate("small")


def test_folder_as_a_mirror_is_read_in_place_and_its_files_may_not_change(server, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(tmp_path / "net.pth", mirror / "old.pth")
    monkeypatch.setenv("TRESNET_MIRROR", str(mirror))
    assert locate("small") == mirror / "old.pth"
    assert not server.paths
    file_of_network(mirror / "old.pth")
    with pytest.raises(UserError, match=r"when it was first fetched, it began with"):
        locate("small")


def test_mirror_is_filled_from_the_cache_and_files_of_the_users(server, tmp_path, monkeypatch):
    server.contents = {"/release/net.pth": server.right}
    locate("small")
    shutil.copy(tmp_path / "net.pth", tmp_path / "old.pth")
    done = dict(fill_mirror(tmp_path / "mirror", [tmp_path / "old.pth"]))
    assert done["small"] == "net.pth copied, old.pth copied"
    assert done["m_coco_asl_224"] == "not in the caches or the given files"
    assert dict(fill_mirror(tmp_path / "mirror"))["small"] == "net.pth is present, old.pth is present"
    shutil.rmtree(tmp_path / "cache")
    server.contents = {}
    monkeypatch.setenv("TRESNET_MIRROR", str(tmp_path / "mirror"))
    assert locate("small") == tmp_path / "mirror" / "net.pth"


def test_mirror_takes_no_wrong_or_unknown_file_and_replaces_none(server, tmp_path):
    shutil.copy(tmp_path / "net.pth", tmp_path / "unknown.pth")
    with pytest.raises(UserError, match=r"unknown\.pth: no public file has this name"):
        list(fill_mirror(tmp_path / "mirror", [tmp_path / "unknown.pth"]))
    file_of_network(tmp_path / "old.pth", num_classes=8)
    with pytest.raises(UserError, match="has 8 classes, not the 7 of small"):
        list(fill_mirror(tmp_path / "mirror", [tmp_path / "old.pth"]))
    (tmp_path / "mirror" / "net.pth").write_bytes(b"mine")
    with pytest.raises(UserError, match="differs from"):
        list(fill_mirror(tmp_path / "mirror", [tmp_path / "net.pth"]))
    assert (tmp_path / "mirror" / "net.pth").read_bytes() == b"mine"


def test_tool_lists_what_the_mirror_has(tmp_path):
    environment = {**os.environ, "TRESNET_CACHE": str(tmp_path / "cache"), "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = [sys.executable, str(TOOL), "mirror", str(tmp_path / "mirror")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == len(CATALOGUE)
    assert all(line.endswith("not in the caches or the given files") for line in done.stdout.splitlines())


def test_names_of_files_in_a_mirror_are_unique():
    names = [place.file_name for entry in catalogue.CATALOGUE.values() for place in entry.places]
    assert len(names) == len(set(names))
    assert "tresnet_m.miil_in1k.safetensors" in names
