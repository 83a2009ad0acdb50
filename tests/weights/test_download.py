"""Downloads from a test server that cuts, refuses and delays responses and sends wrong content."""

import errno
import hashlib
import threading
import time

import pytest
import torch
from weights.server import Server

from tresnet_downstream import files
from tresnet_downstream.errors import UserError
from tresnet_downstream.system_errors import NotWrittenError
from tresnet_downstream.weights import download
from tresnet_downstream.weights import hub as hub_files
from tresnet_downstream.weights.download import cache_folder, fetch
from tresnet_downstream.weights.public_files import locate


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TRESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRESNET_TIMEOUT", "0.5")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    torch.save({"model": {"w": torch.randn(5000)}}, tmp_path / "net.pth")
    server = Server((tmp_path / "net.pth").read_bytes())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def final_files():
    return [path for path in cache_folder().rglob("*.pth") if path.is_file()]


def test_file_is_fetched_once_and_its_checksum_remembered(server):
    path = fetch(server.url)
    assert path.read_bytes() == server.content
    assert path.with_name("net.pth.sha256").read_text().strip() == hashlib.sha256(server.content).hexdigest()
    assert fetch(server.url) == locate(server.url) == path
    assert len(server.ranges) == 1


@pytest.mark.parametrize("etag", ['"1"', None])
def test_cut_connection_is_reported_and_the_next_call_continues_from_there(server, etag):
    server.cut, server.etag = 8000, etag
    with pytest.raises(UserError, match=r"interrupted after 8,000 of [\d,]+ bytes; try again"):
        fetch(server.url)
    assert not final_files()
    server.cut = None
    assert fetch(server.url).read_bytes() == server.content
    assert server.ranges == [None, "bytes=8000-"]
    assert not list(cache_folder().rglob("*.partial*"))


@pytest.mark.parametrize("change", ["another version", "no ranges"])
def test_what_cannot_be_gone_on_with_is_started_anew(server, change):
    server.cut = 8000
    with pytest.raises(UserError):
        fetch(server.url)
    server.cut = None
    if change == "no ranges":
        server.mode = change
    else:
        server.etag, server.content = '"2"', server.content[:4] + bytes(len(server.content) - 4)
    assert fetch(server.url).read_bytes() == server.content


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusal_is_reported_with_its_number(server, status):
    server.mode = status
    with pytest.raises(UserError, match=rf"net\.pth: the server answers {status} .*give its path"):
        fetch(server.url)
    assert not final_files()


def test_silent_server_is_left_after_the_time_limit(server):
    server.mode = "hang"
    start = time.monotonic()
    with pytest.raises(UserError, match=r"did not answer for 0\.5 s"):
        fetch(server.url)
    assert time.monotonic() - start < 2.5


def test_error_page_in_place_of_the_file_is_refused(server):
    server.content = b"<html>sign in</html>" * 100
    with pytest.raises(UserError, match="is not a weight file"):
        fetch(server.url)
    assert not final_files()
    assert not list(cache_folder().rglob("*.partial"))


def test_wrong_file_is_refused_by_the_published_checksum(server):
    with pytest.raises(UserError, match="published"):
        fetch(server.url, "00000000")
    assert not final_files()
    assert fetch(server.url, hashlib.sha256(server.content).hexdigest()[:8]).is_file()


def test_another_file_than_the_first_is_refused(server):
    path = fetch(server.url)
    path.unlink()
    server.content = server.content[:-1] + b"\xff"
    with pytest.raises(UserError, match="when it was first fetched"):
        fetch(server.url)
    assert not path.exists()


def test_file_that_changed_in_the_cache_is_refused(server):
    path = fetch(server.url)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(UserError, match="when it was first fetched"):
        fetch(server.url)


def test_closed_port_is_reported_in_one_line(server):
    url = server.url.replace(str(server.server_port), "9")
    with pytest.raises(UserError, match="cannot be reached"):
        fetch(url)


def test_offline_switch_forbids_fetching_and_not_what_is_here(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        fetch(server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    path = fetch(server.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(server.url) == path


def test_unknown_names_are_reported_with_the_nearest():
    with pytest.raises(UserError, match=r"l_in1k_44: no such name in the catalogue.*l_in1k_448"):
        locate("tresnet://l_in1k_44")
    with pytest.raises(UserError, match="no such file"):
        locate("nowhere.pth")


@pytest.fixture
def hub(monkeypatch):
    """The hub's name is known, and nothing of it is here."""
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])


def test_hub_files_come_from_the_hub_and_its_cache(tmp_path, monkeypatch, hub):
    asked = []
    (tmp_path / "model.safetensors").write_bytes(b"x")
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *arguments: asked.append(arguments) or tmp_path / "model.safetensors"
    )
    assert locate("hf://timm/tresnet_m.miil_in1k/model.safetensors") == tmp_path / "model.safetensors"
    assert asked == [("timm/tresnet_m.miil_in1k", "model.safetensors")]


def test_without_a_network_the_hub_is_not_asked(monkeypatch, hub):
    def unknown(*_):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr(hub_files, "getproxies", dict)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("the hub's client was called"))
    with pytest.raises(UserError, match=r"cannot be fetched from the hub \(.*Name or service not known\)"):
        locate("hf://timm/tresnet_m.miil_in1k/model.safetensors")


def test_hub_out_of_reach_is_one_line(monkeypatch, hub):
    def fail(*arguments):
        raise OSError("offline\nmode")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UserError, match=r"cannot be fetched from the hub \(offline mode\)"):
        locate("hf://timm/tresnet_m.miil_in1k/model.safetensors")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mark": 1}'])
def test_a_damaged_note_of_what_was_begun_starts_over(server, content):
    server.cut = 8000
    with pytest.raises(UserError):
        fetch(server.url)
    (note,) = cache_folder().rglob("*.partial.version")
    note.write_text(content)
    server.cut = None
    assert fetch(server.url).read_bytes() == server.content


@pytest.mark.parametrize("content", [b"\xff\xfe", b"0123", b"g" * 64])
def test_a_damaged_note_of_the_checksum_is_reported(server, content):
    path = fetch(server.url)
    path.with_name("net.pth.sha256").write_bytes(content)
    with pytest.raises(UserError, match=r"net\.pth\.sha256: is damaged: it has no checksum.*delete net\.pth\.sha256"):
        fetch(server.url)


def test_a_part_that_was_damaged_meanwhile_is_noticed_and_not_kept(server):
    server.cut = 8000
    with pytest.raises(UserError):
        fetch(server.url)
    (part,) = cache_folder().rglob("*.partial")
    part.write_bytes(part.read_bytes()[:4000] + bytes(4000))
    server.cut = None
    with pytest.raises(UserError, match="the file was fetched in parts, and the content is truncated or damaged"):
        fetch(server.url)
    assert fetch(server.url).read_bytes() == server.content


def test_cut_file_of_a_server_that_says_no_length_is_neither_kept_nor_remembered(server):
    server.mode, server.cut = "no length", 8000
    with pytest.raises(UserError, match=r"does not state the length.*truncated or damaged"):
        fetch(server.url)
    assert not list(cache_folder().rglob("net*"))
    server.cut = None
    assert fetch(server.url).read_bytes() == server.content


def test_urls_that_differ_have_files_and_locks_that_differ(server):
    urls = [server.url, server.url.replace("net", "a%20b"), server.url.replace("net", "a_20b"), f"{server.url}?a"]
    assert len({fetch(url) for url in urls}) == len(server.ranges) == 4
    assert len(list((cache_folder() / ".locks").iterdir())) == 4


def test_longer_downloads_than_the_limit_end(server, monkeypatch):
    monkeypatch.setenv("TRESNET_MAX_DOWNLOAD_BYTES", "8000")
    with pytest.raises(UserError, match="TRESNET_MAX_DOWNLOAD_BYTES"):
        fetch(server.url)


@pytest.mark.parametrize("url", ["hf://a", "http://[1", "http://a b/net.pth"])
def test_invalid_urls_are_refused(server, url):
    with pytest.raises(UserError, match=r"is not a URL|give hf://|cannot be reached"):
        fetch(url)


def test_full_disk_of_the_cache_is_reported_with_the_folder_and_what_to_do(server, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    words = f"{cache_folder()}: a file in it cannot be written: no space is left .*, or set TRESNET_CACHE to a folder"
    with pytest.raises(NotWrittenError, match=words):
        fetch(server.url)


def test_full_disk_before_the_first_byte_names_the_file(server, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr(files.os, "replace", full)
    words = r"partial\.version: cannot be written: no space is left .*, or set TRESNET_CACHE to a folder"
    with pytest.raises(NotWrittenError, match=words):
        fetch(server.url)
