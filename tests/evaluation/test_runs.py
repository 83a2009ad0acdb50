"""Reading and writing of run folders, complete and damaged."""

import gzip
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from evaluation.small_runs import ODD_NAMES, detection_run, multilabel_run

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import multilabel_scores, read_run, write_multilabel_run, write_scored


def test_a_multilabel_run_is_read_as_it_was_written_and_stays_on_disk(tmp_path):
    run = multilabel_run(tmp_path / "run")
    found = read_run(tmp_path / "run")
    assert isinstance(found.probabilities, np.memmap)
    assert (found.probabilities == run.probabilities).all()
    assert (found.targets == run.targets).all()
    assert (found.probabilities.dtype, found.targets.dtype) == (np.float32, np.int8)
    for name in ("images", "classes", "threshold", "top_k", "about"):
        assert getattr(found, name) == getattr(run, name)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"run.json", "probabilities.npy", "targets.npy", "images.json"}


def test_a_detection_run_is_read_as_it_was_written_and_files_are_small(tmp_path):
    run = detection_run(tmp_path / "run")
    found = read_run(tmp_path / "run")
    assert found.predictions == run.predictions
    assert found.ground_truth["annotations"] == run.ground_truth["annotations"]
    assert found.category_ids() == [7, 3, 90, 12]
    packed = (tmp_path / "run" / "predictions_bbox.json.gz").stat().st_size
    assert packed < len(json.dumps(run.predictions["bbox"])) / 2


def test_what_scoring_does_not_take_is_left_out_of_the_ground_truth(tmp_path):
    run = detection_run(tmp_path / "with")
    for annotation in run.ground_truth["annotations"]:
        annotation |= {"segmentation": [[0, 0, 9, 0, 9, 9]], "caption": "x"}
    detection_run(tmp_path / "run", ground_truth={**run.ground_truth, "licences": ["x"]})
    truth = read_run(tmp_path / "run").ground_truth
    assert truth.keys() == {"images", "annotations", "categories"}
    assert set(truth["annotations"][0]) == {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}


def test_a_run_that_is_scored_again_replaces_the_old_one(tmp_path):
    multilabel_run(tmp_path / "run", num_images=60)
    multilabel_run(tmp_path / "run", num_images=50)
    assert len(read_run(tmp_path / "run").images) == 50


def test_an_interrupted_write_leaves_no_folder_that_looks_whole(tmp_path, monkeypatch):
    run = multilabel_run(tmp_path / "run")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_multilabel_run(run, tmp_path / "run")
    assert not [path.name for path in (tmp_path / "run").iterdir() if ".partial" in path.name]
    with pytest.raises(UserError, match=r"has no run\.json; tresnet score"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["probabilities.npy", "targets.npy", "images.json"])
def test_a_missing_file_is_named(tmp_path, name):
    multilabel_run(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(UserError, match=f"run: is incomplete: {name} is missing; score again"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["ground_truth.json.gz", "predictions_bbox.json.gz"])
def test_a_missing_or_damaged_file_of_a_detector_is_named(tmp_path, name):
    detection_run(tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{name}: cannot be read .*; score again"):
        read_run(tmp_path / "run")
    path.unlink()
    with pytest.raises(UserError, match=f"is incomplete: {name} is missing"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"run\.json: has version 2 of its format, and this toolkit reads 1; update it"),
        ({"version": "1"}, "has version '1'"),
        ({"format": "x"}, r"is not of the format tresnet_downstream\.run; tresnet score writes such files"),
        ({"task": "poetry"}, r"run\.json: `task` is 'poetry', not multilabel, single_label or detection"),
        ({"classes": None}, "`classes` is 'None', not a list of names"),
        ({"classes": [1, 2]}, "`classes` is"),
        ({"about": None}, "`about` is 'None', not an object"),
        ({"image_folder": None}, "`image_folder` is 'None', not a path"),
        ({"threshold": None}, "`threshold` is 'None', not a probability"),
        ({"threshold": "0.5"}, "`threshold` is"),
        ({"top_k": 0}, "`top_k` is '0', not a number of labels"),
        ({"top_k": 2.5}, "`top_k` is"),
        ({"num_images": 119}, r"of shape \(119, 8\) by run\.json, but has shape \(120, 8\) .*; score again"),
    ],
)
def test_errors_name_the_fault_of_the_description(tmp_path, change, message):
    multilabel_run(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        read_run(tmp_path / "run")


def test_errors_for_folders_that_are_not_run_folders(tmp_path):
    with pytest.raises(UserError, match="none: no such folder"):
        read_run(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no run\.json"):
        read_run(tmp_path)


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    multilabel_run(tmp_path / "run")
    np.save(tmp_path / "run" / "targets.npy", np.array([{}], object))
    with pytest.raises(UserError, match=r"targets\.npy: cannot be read"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.1])
def test_the_first_image_with_an_invalid_score_is_named(tmp_path, value):
    run = multilabel_run(tmp_path / "run")
    run.probabilities[70:, 2] = value
    with pytest.raises(UserError, match=r"the run: image '070\.jpg' has .* for the class 'كلب صغير'"):
        write_multilabel_run(run, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    np.save(tmp_path / "run" / "probabilities.npy", run.probabilities)
    with pytest.raises(UserError, match=r"run: image '070\.jpg' has .*, which is not a probability"):
        read_run(tmp_path / "run")


def test_invalid_targets_are_named(tmp_path):
    run = multilabel_run(tmp_path / "run")
    run.targets[3, 1] = 2
    with pytest.raises(UserError, match=r"image '003\.jpg' has 2 for the class .*, which is not 1, 0 or -1"):
        write_multilabel_run(run, tmp_path / "run")


@pytest.mark.parametrize("score", [None, float("nan")])
def test_the_image_of_a_box_without_a_score_is_named(tmp_path, score):
    run = detection_run(tmp_path / "run")
    rows = [dict(row) for row in run.predictions["bbox"]]
    rows[5]["score"] = score
    path = tmp_path / "run" / "predictions_bbox.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    name = {image["id"]: image["file_name"] for image in run.ground_truth["images"]}[rows[5]["image_id"]]
    with pytest.raises(UserError, match=f"image '{name}' has (a bbox with score nan|no `score`)"):
        read_run(tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    run = multilabel_run(tmp_path / "run")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken: cannot write the run here"):
        write_multilabel_run(run, tmp_path / "taken")


def test_a_run_can_be_moved(tmp_path):
    multilabel_run(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert read_run(tmp_path / "elsewhere").classes == ODD_NAMES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["a.jpg"] * 120}, "the image 'a.jpg' is there twice"),
        ({"classes": ("cat",) * 8}, "the class 'cat' is there twice"),
        ({"images": ["a.jpg"]}, r"probabilities are of shape \(120, 8\), not images x classes, \(1, 8\)"),
        ({"top_k": 0}, "`top_k` is '0'"),
        ({"threshold": 2}, "`threshold` is '2', not a probability"),
    ],
)
def test_runs_that_could_not_be_read_are_not_written(tmp_path, change, message):
    before = multilabel_run(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        multilabel_run(tmp_path / "run", **change)
    with pytest.raises(TypeError):
        multilabel_run(tmp_path / "run", about={"a": {1, 2}})
    assert read_run(tmp_path / "run").images == before.images


def test_runs_of_other_networks_may_have_other_types(tmp_path):
    run = multilabel_run(tmp_path / "run")
    given = {"probabilities": run.probabilities.astype(np.float64).tolist(), "targets": run.targets == 1}
    multilabel_run(tmp_path / "other", **given, images=[tmp_path / name for name in run.images])
    found = read_run(tmp_path / "other")
    assert (found.probabilities.dtype, found.targets.dtype) == (np.float32, np.int8)
    assert (found.probabilities == run.probabilities).all()


def test_annotations_may_leave_out_what_follows_from_others(tmp_path):
    run = detection_run(tmp_path / "run")
    plain = [annotation for annotation in run.ground_truth["annotations"] if not annotation["iscrowd"]]
    truth = {**run.ground_truth, "annotations": plain}
    detection_run(tmp_path / "one", ground_truth=truth)
    bare = [{key: value for key, value in given.items() if key not in ("area", "iscrowd")} for given in plain]
    rows = [{**row, "score": np.float32(row["score"])} for row in run.predictions["bbox"]]
    detection_run(tmp_path / "two", ground_truth={**truth, "annotations": bare}, predictions={"bbox": rows})
    assert read_run(tmp_path / "two").ground_truth == read_run(tmp_path / "one").ground_truth


@pytest.mark.parametrize(
    ("part", "key", "message"),
    [
        ("images", "width", r"image '1\.jpg' has no `width`"),
        ("annotations", "bbox", r"annotation of image '\d+\.jpg' has no `bbox`"),
        ("predictions", "bbox", r"prediction \(bbox\) of image '\d+\.jpg' has no `bbox`"),
    ],
)
def test_missing_keys_of_a_detectors_record_are_named(tmp_path, part, key, message):
    run = detection_run(tmp_path / "run")
    records = run.predictions["bbox"] if part == "predictions" else run.ground_truth[part]
    records[0].pop(key)
    with pytest.raises(UserError, match=message):
        detection_run(tmp_path / "run", ground_truth=run.ground_truth, predictions=run.predictions)


def test_scores_of_unknown_weights_are_never_taken_for_the_same(tmp_path, capsys):
    run = multilabel_run(tmp_path / "other")
    scores = multilabel_scores(run.probabilities, run.targets, run.classes)
    for about in ({"model": "mine"}, {"model": "mine"}):
        write_scored(scores, replace(run, about=about), tmp_path / "run")
    assert read_run(tmp_path / "run/earlier_1").images == run.images
    assert "earlier_1" in capsys.readouterr().err
