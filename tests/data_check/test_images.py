"""Image files are read in worker processes; a file that kills a worker does not end the check."""

import os

import pytest
from data_check.faulty_data import change, classification_error, detection_error, kinds, source
from data_check.killed_reader import KILLER, killed_by_one

from tresnet_downstream.data_check import check_data
from tresnet_downstream.data_check.images import look_at, look_at_all


def rename_first(data, name):
    change(data / "train.json", lambda content: content["images"][0].update(file_name=name))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_file_is_read_once_whatever_the_number_of_workers(labels, workers):
    names = sorted(os.listdir(labels / "pictures"))
    looks = dict(look_at_all([(str(labels / "pictures"), name) for name in names], workers))
    assert sorted(name for _, name in looks) == names
    assert all(look == look_at(file) and look.problem is None for file, look in looks.items())


@pytest.mark.slow
def test_killed_worker_is_reported_and_all_other_files_are_read(labels):
    folder = str(labels / "pictures")
    (labels / "pictures" / KILLER).write_bytes(b"")
    files = [(folder, name) for name in sorted(os.listdir(folder))]
    looks = dict(look_at_all(files, 2, look=killed_by_one))
    assert set(looks) == set(files)
    assert [name for (_, name), look in looks.items() if look.problem] == [KILLER]
    assert looks[folder, KILLER].problem == "killed-worker"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in folders")
def test_pipe_in_place_of_an_image_does_not_hang_the_check(labels):
    (labels / "pictures/train_00.jpg").unlink()
    os.mkfifo(labels / "pictures/train_00.jpg")
    assert "broken-image" in kinds(source(labels))["error"]


@pytest.mark.parametrize("way", ["..", "absolute", "link to a file", "link to a folder"])
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_name_that_leads_out_of_the_folder_is_an_error_unless_it_is_allowed(labels, own_boxes, tmp_path, way, task):
    data, name = (labels, "train_00.jpg") if task == "classification" else (own_boxes, "train_01.png")
    error_of = classification_error if task == "classification" else lambda of: detection_error(of)[0]
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (data / "pictures" / name).rename(outside / name)
    if way == "..":
        rename_first(data, f"../../elsewhere/{name}")
    elif way == "absolute":
        rename_first(data, str(outside / name))
    elif way == "link to a file":
        (data / "pictures" / name).symlink_to(outside / name)
    else:
        (data / "pictures/more").symlink_to(outside)
        rename_first(data, f"more/{name}")
    assert error_of(source(data, task)) is not None
    assert kinds(source(data, task))["error"] == {"name-leaves-folder"}
    allowed = source(data, task, outside_paths=True)
    assert error_of(allowed) is None
    found = kinds(allowed)
    assert "name-leaves-folder" in found["warning"]
    assert not found["error"]


def test_names_and_links_inside_the_folder_are_no_finding(labels):
    (labels / "pictures/..odd.jpg").symlink_to(labels / "pictures/train_00.jpg")
    rename_first(labels, "../pictures/..odd.jpg")
    assert classification_error(source(labels)) is None
    findings = check_data([source(labels)]).findings
    # The name leaves the folder only by its letters.
    assert [(finding.kind, finding.severity) for finding in findings] == [("name-leaves-folder", "warning")]
    rename_first(labels, "./..odd.jpg")
    assert not check_data([source(labels)]).findings


def test_image_of_another_size_than_the_file_says_is_an_error_for_boxes(own_boxes):
    change(own_boxes / "train.json", lambda content: content["images"][0].update(width=80))
    assert "other-size" in kinds(source(own_boxes, "detection"))["error"]
    assert not kinds(source(own_boxes))["error"]
