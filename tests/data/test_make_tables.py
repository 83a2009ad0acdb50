"""The script that writes tables of some of the images in class folders."""

import subprocess
import sys
from pathlib import Path

import pytest

from tresnet_downstream.formats import read_file

SCRIPT = Path(__file__).parents[2] / "data" / "make_tables.py"


@pytest.fixture
def folder(tmp_path):
    for name in "abcd":
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "all" / name / f"{number}, {name}.jpg").touch()
    return tmp_path / "all"


def make(folder, name, *arguments):
    out = folder.parent / name
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, out, *arguments], capture_output=True, text=True, check=False
    )
    return done, out


def test_a_table_has_the_classes_and_the_number_of_images_asked_for(folder):
    done, out = make(folder, "some.csv", "--classes", "1:3", "--per-class", "2")
    assert done.stdout == f"{out}: 4 images of 2 classes\n"
    images = read_file(out)
    assert images.classes == ("b", "c")
    assert all(
        name.startswith(f"{images.classes[of]}/") for name, of in zip(images.names, images.class_of, strict=True)
    )
    assert len(set(images.names)) == 4
    _, again = make(folder, "again.csv", "--classes", "1:3", "--per-class", "2")
    _, other = make(folder, "other.csv", "--classes", "1:3", "--per-class", "2", "--seed", "1")
    assert again.read_text() == out.read_text() != other.read_text()


def test_without_options_it_has_every_image(folder):
    assert read_file(make(folder, "every.csv")[1]).names == [f"{c}/{n}, {c}.jpg" for c in "abcd" for n in range(5)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--classes", "2:5"], "has 4 classes"),
        (["--classes", "2"], "write FIRST:LAST"),
        (["--per-class", "6"], "'a' has 5 images, not 6"),
    ],
)
def test_missing_classes_and_images_are_reported_in_one_line(folder, arguments, told):
    done, out = make(folder, "none.csv", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()
