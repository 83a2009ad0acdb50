import json
import os
import pickle
import random
from dataclasses import fields

import numpy as np
import pytest

from tresnet_downstream.classification import annotation_cache
from tresnet_downstream.classification.annotation_cache import cached_annotations
from tresnet_downstream.classification.annotations import read_annotations
from tresnet_downstream.errors import UserError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("a/ä.jpg,cat;dog\nb.jpg,dog,cat\nc.jpg,\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "made" / "cache"


@pytest.fixture(autouse=True)
def _small_files_count(monkeypatch):
    monkeypatch.setattr(annotation_cache, "MIN_BYTES", 0)


def read(file, folder, **options):
    return cached_annotations(file, cache_dir=folder, **options)


def same(one, other):
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def refuse_parsing(monkeypatch):
    monkeypatch.setattr(annotation_cache, "read_annotations", lambda *_: pytest.fail("parsed again"))


def test_later_starts_map_what_the_first_wrote(file, folder, monkeypatch):
    first = read(file, folder)
    refuse_parsing(monkeypatch)
    later = read(file, folder)
    assert same(first, later)
    assert later.classes == ("cat", "dog")
    assert later.paths() == ["a/ä.jpg", "b.jpg"] == [later.path(0), later.path(1)]
    # Pages of the file, which every process shares, and not a copy.
    assert not any(getattr(later, name).flags.owndata for name in annotation_cache.ARRAYS)
    assert same(pickle.loads(pickle.dumps(later)), first)


@pytest.mark.parametrize("change", ["size", "time", "classes", "keep_empty", "format"])
def test_cache_of_another_file_format_or_options_is_not_used(file, folder, monkeypatch, change):
    read(file, folder)
    options = {}
    if change == "size":
        file.write_text("x.jpg,bird\n")
    elif change == "time":
        content = file.read_text(encoding="utf-8").replace("dog", "cow")
        file.write_text(content, encoding="utf-8")
        os.utime(file, ns=(1, 1))
    elif change == "format":
        monkeypatch.setattr(annotation_cache, "MAGIC", annotation_cache.MAGIC.replace(b"1\n", b"2\n"))
    else:
        options = {"classes": ("dog", "cat")} if change == "classes" else {"keep_empty": True}
    expected = read_annotations(file, options.get("classes"), options.get("keep_empty", False))
    assert same(read(file, folder, **options), expected)
    refuse_parsing(monkeypatch)
    assert same(read(file, folder, **options), expected)


def test_damaged_cache_is_written_anew(file, folder, monkeypatch):
    expected = read(file, folder)
    (cache,) = folder.iterdir()
    whole = cache.read_bytes()
    for place in range(0, len(whole), 7):
        cache.write_bytes(whole[:place])
        assert same(read(file, folder), expected)
        cache.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        assert same(read(file, folder), expected)
    refuse_parsing(monkeypatch)
    assert same(read(file, folder), expected)
    assert len(list(folder.iterdir())) == 1


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(file, folder):
    expected = read(file, folder)
    (cache,) = folder.iterdir()
    whole, draw = cache.read_bytes(), random.Random(0)
    for place in (draw.randrange(8 * len(whole)) for _ in range(200)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        cache.write_bytes(flipped)
        assert same(read(file, folder), expected)


def test_read_only_folder_gets_no_cache(file, tmp_path):
    (tmp_path / "taken").write_text("a file")
    assert same(read(file, tmp_path / "taken"), read_annotations(file))
    assert same(read(file, tmp_path / "taken" / "deeper"), read_annotations(file))


def test_small_files_and_none_make_no_cache(file, folder, monkeypatch):
    cached_annotations(file)
    monkeypatch.setattr(annotation_cache, "MIN_BYTES", file.stat().st_size + 1)
    cached_annotations(file, cache_dir=folder)
    assert not folder.exists()


def test_errors_are_those_of_reading_and_leave_nothing(tmp_path, folder):
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "gone.json", folder)
    (tmp_path / "bad.json").write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match="instances"):
        read(tmp_path / "bad.json", folder)
    assert not folder.exists()


def test_file_of_the_same_size_and_time_but_other_content_is_read_again(file, folder):
    read(file, folder)
    before = file.stat()
    file.write_text(file.read_text(encoding="utf-8").replace("dog", "cow"), encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert read(file, folder).classes == ("cat", "cow")


def test_file_of_the_same_content_but_another_time_is_mapped(file, folder, monkeypatch):
    read(file, folder)
    os.utime(file, ns=(1, 1))
    refuse_parsing(monkeypatch)
    assert read(file, folder).classes == ("cat", "dog")


def test_cache_with_a_changed_header_is_not_used(file, folder):
    expected = read(file, folder)
    (cache,) = folder.iterdir()
    whole = cache.read_bytes()
    start = whole.rindex(b'"cat", "dog"')
    for changed in (b'"dog", "cat"', b'"cat"       '):
        cache.write_bytes(whole[:start] + changed + whole[start + len(changed) :])
        assert same(read(file, folder), expected)


def test_file_that_changes_while_it_is_read_makes_no_cache(file, folder, monkeypatch):
    def changing(*arguments):
        annotations = read_annotations(*arguments)
        file.write_text("x.jpg,bird\n")
        return annotations

    monkeypatch.setattr(annotation_cache, "read_annotations", changing)
    assert read(file, folder).classes == ("cat", "dog")
    assert not folder.exists()
    monkeypatch.undo()
    monkeypatch.setattr(annotation_cache, "MIN_BYTES", 0)
    assert read(file, folder).classes == ("bird",)


def test_images_left_out_are_counted_in_the_cache_too(file, folder, monkeypatch):
    assert read(file, folder).num_unlabelled == 1
    refuse_parsing(monkeypatch)
    assert read(file, folder).num_unlabelled == 1
