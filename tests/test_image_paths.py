"""File names of images must be below the image folder, unless `outside_paths` allows others."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from evaluation.small_runs import detection_run, multilabel_run
from mmengine.registry import init_default_scope
from PIL import Image
from running.small_data import call

from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.detection.datasets import CocoBoxes
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import read_run
from tresnet_downstream.evaluation.origin import is_of_this_account, origin_of
from tresnet_downstream.evaluation.report import write_report
from tresnet_downstream.image_paths import missing_images

SECRET = (250, 1, 200)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Images in a folder, and a private one beside it that links and names lead to."""
    monkeypatch.setenv("TRESNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    for name in ("images/a.png", "images/sub/b.png", "private/secret.png"):
        Image.new("RGB", (32, 24), SECRET).save(tmp_path / name)
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "private" / "secret.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "private")
    (tmp_path / "images" / "inside.png").symlink_to(tmp_path / "images" / "a.png")
    (tmp_path / "folder_link").symlink_to(tmp_path / "images")
    return tmp_path


def test_links_to_files_that_are_not_there_are_missing(folder):
    (folder / "images" / "inside_gone.png").symlink_to(folder / "images" / "gone.png")
    (folder / "images" / "outside_gone.png").symlink_to(folder / "private" / "gone.png")
    names = ["a.png", "inside_gone.png", "link.png", "outside_gone.png"]
    images = str(folder / "images")
    assert missing_images(images, names, "a.csv", outside_paths=True) == ["inside_gone.png", "outside_gone.png"]
    assert missing_images(images, names[:2], "a.csv") == ["inside_gone.png"]
    with pytest.raises(UserError, match=r"1 of 2 images are not in .*'inside_gone\.png'"):
        multilabel(table(folder, *names[:2]), images)


LEADING_OUT = ("../private/secret.png", "sub/../../private/secret.png", "link.png", "linked/secret.png", "ABSOLUTE")


def coco(folder, *names):
    names = [str(folder / "private" / "secret.png") if name == "ABSOLUTE" else name for name in names]
    content = {
        "images": [{"id": n, "file_name": name, "width": 32, "height": 24} for n, name in enumerate(names)],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            for n in range(len(names))
        ],
        "categories": [{"id": 1, "name": "disc"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return str(folder / "a.json")


def table(folder, *names):
    names = [str(folder / "private" / "secret.png") if name == "ABSOLUTE" else name for name in names]
    (folder / "a.csv").write_text("path,label\n" + "".join(f"{name},disc\n" for name in names))
    return str(folder / "a.csv")


def multilabel(file, images, **options):
    return MultiLabelDataset(file, str(images), [{"type": "SquashResize", "size": 8}], **options)


def boxes(file, images, **options):
    init_default_scope("mmdet")
    return CocoBoxes(
        ann_file=file, data_prefix={"img": str(images)}, pipeline=[{"type": "LoadImageFromFile"}], **options
    )


READERS = {"coco": (coco, multilabel), "csv": (table, multilabel), "boxes": (coco, boxes)}


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("kind", READERS)
def test_names_that_lead_out_of_the_folder_are_refused(folder, kind, name):
    write, read = READERS[kind]
    file = write(folder, "a.png", name)
    with pytest.raises(UserError, match=r"leads out of the image folder .*outside_paths=True"):
        read(file, folder / "images")
    assert len(read(file, folder / "images", outside_paths=True)) == 2


@pytest.mark.parametrize("kind", READERS)
def test_links_within_the_folder_and_a_linked_folder_are_followed(folder, kind):
    write, read = READERS[kind]
    file = write(folder, "a.png", "sub/b.png", "inside.png")
    assert len(read(file, folder / "images")) == len(read(file, folder / "folder_link")) == 3


def pictures_of(report):
    return list((report / "images").iterdir()) if (report / "images").exists() else []


@pytest.mark.parametrize("make", [multilabel_run, detection_run])
def test_a_report_reads_only_image_folders_of_its_own_account(folder, make, monkeypatch):
    run = folder / "scored" / "run"
    make(run)
    for name in names_of(run):
        (folder / "scored" / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (320, 240), SECRET).save(folder / "scored" / "pictures" / name)
    write_report(run, folder / "own", resamples=0)
    assert pictures_of(folder / "own")
    monkeypatch.setenv("TRESNET_CACHE", str(folder / "cache of another account"))
    told = []
    write_report(run, folder / "foreign", resamples=0, tell=told.append)
    assert not pictures_of(folder / "foreign")
    assert any("another account or machine scored this run" in line for line in told)
    status, out, err = call("report", [run, "--out", folder / "command", "--resamples", "0"])
    assert status == 0, err
    assert "set the report's --images to it" in out
    write_report(run, folder / "named", resamples=0, images=folder / "scored" / "pictures")
    assert pictures_of(folder / "named")


def names_of(run):
    read = read_run(run)
    return read.images if hasattr(read, "images") else [image["file_name"] for image in read.ground_truth["images"]]


def test_a_run_folder_that_names_another_folder_is_not_followed(folder):
    run = folder / "scored" / "run"
    multilabel_run(run)
    assert read_run(run).scored_here
    shutil.copytree(run, folder / "copied")
    assert read_run(folder / "copied").scored_here
    content = json.loads((run / "run.json").read_text())
    for changed in ({"image_folder": str(folder / "private")}, {"origin": "0" * 64}, {"origin": None}, {"origin": "é"}):
        (run / "run.json").write_text(json.dumps(content | changed))
        assert not read_run(run).scored_here


@pytest.mark.parametrize("outside_paths", [False, True])
def test_a_report_shows_no_image_from_outside_its_folder(folder, outside_paths):
    run = folder / "scored" / "run"
    names = ["../private/secret.png", "link.png", *(f"linked/../{n}.png" for n in range(10))]
    probabilities = np.linspace(0.2, 0.9, 24, dtype=np.float32).reshape(12, 2)
    multilabel_run(
        run,
        probabilities=probabilities,
        targets=np.eye(2, dtype=np.int8)[np.arange(12) % 2],
        images=names,
        classes=("cat", "dog"),
        image_folder=str(folder / "images"),
    )
    told = []
    write_report(run, folder / "report", resamples=0, outside_paths=outside_paths, tell=told.append)
    assert bool(pictures_of(folder / "report")) == outside_paths
    assert any("lie outside of" in line for line in told) == (not outside_paths)


@pytest.mark.parametrize("left_behind", [None, b"", b"half a key"])
def test_all_processes_of_an_account_have_one_key_which_only_it_can_read(folder, left_behind):
    key = folder / "cache" / "run_folders.key"
    if left_behind is not None:  # as by a process that was killed, or a disk that was full
        key.parent.mkdir()
        key.write_bytes(left_behind)
    with ThreadPoolExecutor(8) as pool:
        origins = set(pool.map(origin_of, ["/data/images"] * 8))
    (origin,) = origins
    assert is_of_this_account(origin, "/data/images")
    assert not is_of_this_account(origin, "/data/other")
    assert key.stat().st_mode & 0o077 == 0


def test_a_run_that_is_scored_without_a_key_is_kept(folder, monkeypatch):
    (folder / "no folder").write_text("")
    monkeypatch.setenv("TRESNET_CACHE", str(folder / "no folder"))
    multilabel_run(folder / "run")
    assert not read_run(folder / "run").scored_here
