"""Files appear only when they are complete."""

import errno
import os
from pathlib import Path

import pytest

from tresnet_downstream import files
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import Earlier, named_if_unwritable, whole_file


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, OSError])
def test_interrupted_writing_leaves_the_old_file_and_no_part(tmp_path, interrupt):
    path = tmp_path / "best.pth"
    path.write_text("old")

    def write_half():
        with whole_file(path) as partial:
            partial.write_text("ne")
            raise interrupt

    with pytest.raises(interrupt):
        write_half()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("best.pth", "old")]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"/a\.json: cannot be written: no space is left .*"),
        (errno.ENOTDIR, r"folder: cannot be written \(.+\); choose another"),
    ],
)
def test_failure_to_write_is_reported_in_one_line_with_its_reason(tmp_path, monkeypatch, number, words):
    def fail(source, target):
        raise OSError(number, os.strerror(number), str(source))

    monkeypatch.setattr(files.os, "replace", fail)
    with (
        pytest.raises(UserError, match=f"{words}$"),
        named_if_unwritable("folder", advice="choose another"),
        whole_file(tmp_path / "a.json") as partial,
    ):
        partial.write_text("{}")


def test_whole_file_replaces_the_old_and_keeps_its_suffix_while_written(tmp_path):
    path = tmp_path / "best.pth"
    path.write_text("old")
    with whole_file(path) as partial:
        assert partial.suffix == ".pth"
        partial.write_text("new")
        assert path.read_text() == "old"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("best.pth", "new")]


def test_files_go_to_the_first_free_folder_together_and_one_line_says_so(tmp_path, capsys):
    (tmp_path / "earlier_1").write_text("a file of that name")
    for name in ("a", "b/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    earlier = Earlier(tmp_path)
    earlier.keep("a", "missing")
    earlier.keep("b/c")
    assert [(tmp_path / "earlier_2" / name).read_text() for name in ("a", "b/c")] == ["a", "b/c"]
    assert not (tmp_path / "a").exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_files_of_the_same_content_stay_and_pairs_stay_together(tmp_path, capsys):
    for name, text in (("m.xml", "old"), ("m.bin", "same"), ("new.xml", "old"), ("new.bin", "same")):
        (tmp_path / name).write_text(text)
    pairs = [(tmp_path / "new.xml", "m.xml"), (tmp_path / "new.bin", "m.bin")]
    Earlier(tmp_path).keep_unless_same(*pairs)
    assert (tmp_path / "m.xml").exists()
    assert capsys.readouterr().err == ""
    (tmp_path / "new.xml").write_text("other")
    Earlier(tmp_path).keep_unless_same(*pairs)
    assert [(tmp_path / "earlier_1" / name).read_text() for name in ("m.xml", "m.bin")] == ["old", "same"]


def test_file_that_cannot_be_moved_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("a")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=r"a: cannot be moved to .*earlier_1/a"):
        Earlier(tmp_path).keep("a")
