"""The files that scoring writes, and their use without the network."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from running.small_data import CLASSES, DIGITS, ROOT, call, options, refused, train
from running.small_folders import FOLDERS

from tresnet_downstream.classification.explain import explain
from tresnet_downstream.classification.model_loading import load_model
from tresnet_downstream.evaluation import multilabel_scores, read_run
from tresnet_downstream.prediction.labels import predict

KINDS = ("false_positives", "false_negatives")


@pytest.fixture(scope="module")
def scored(data, tmp_path_factory):
    """The work dir of a small training that was scored with a report, and what was printed."""
    work_dir = tmp_path_factory.mktemp("scored")
    train(data, work_dir)
    arguments = [DIGITS, work_dir / "best.pth", "--work-dir", work_dir, "--weights", "raw"]
    status, out, err = call("test_multilabel", [*arguments, "--report", work_dir / "report", *options(data)])
    assert status == 0, err
    return work_dir, out


def test_the_run_holds_what_was_scored(scored, data):
    work_dir, out = scored
    run = read_run(work_dir)
    assert run.classes == CLASSES
    assert run.images == [image["file_name"] for image in json.loads((data / "val.json").read_text())["images"]]
    scores = multilabel_scores(run.probabilities, run.targets, run.classes, run.threshold, run.top_k)
    assert f"mAP {scores.mAP:.2f}  images 11  classes 3" in out
    assert json.loads((work_dir / "scores.json").read_text())["headline"]["mAP"] == scores.mAP
    found = predict(load_model(work_dir / "best.pth", weights="raw"), [f"{run.image_folder}/{run.images[4]}"])
    np.testing.assert_allclose(run.probabilities[4], found[0], atol=1e-5)


def test_the_run_says_where_it_comes_from(scored):
    work_dir, _ = scored
    about = read_run(work_dir).about
    assert about["checkpoint"] == str(work_dir / "best.pth")
    assert (about["weights"], about["config"]) == ("raw", DIGITS)
    assert about["data"].endswith("val.json")
    assert len(about["checkpoint_sha256"]) == 64
    assert about["model"]["backbone"]["type"] == "TResNet"
    assert "init_cfg" not in about["model"]["backbone"]
    assert about["versions"].keys() >= {"tresnet-downstream", "python", "torch", "numpy"}


def test_the_report_is_written_and_its_path_printed(scored):
    work_dir, out = scored
    assert f"wrote {work_dir / 'report' / 'report.html'}" in out.splitlines()
    (run,) = json.loads((work_dir / "report" / "scores.json").read_text())["runs"]
    assert run["about"] == json.loads((work_dir / "run.json").read_text())["about"]


def test_maps_of_the_mistakes_are_kept_for_the_report(scored, data, tmp_path):
    pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
    work_dir, _ = scored
    arguments = [DIGITS, work_dir / "best.pth", "--work-dir", tmp_path / "run", "--weights", "raw", "--explain"]
    status, out, err = call("test_multilabel", [*arguments, "--report", tmp_path / "report", *options(data)])
    assert (status, err) == (0, "")
    assert f"wrote {tmp_path / 'run' / 'explanations.npy'}" in out.splitlines()
    run, plain = read_run(tmp_path / "run"), read_run(work_dir)
    np.testing.assert_array_equal(run.probabilities, plain.probabilities)
    assert (
        json.loads((work_dir / "scores.json").read_text())["headline"]
        == (json.loads((tmp_path / "run" / "scores.json").read_text())["headline"])
    )
    (found,) = json.loads((tmp_path / "report" / "scores.json").read_text())["runs"]
    mistakes = [(each["image"], each["class"]) for kind in KINDS for each in found[kind]]
    assert mistakes
    assert set(mistakes) == set(run.explanations.pairs)
    pictures = {path.name for path in (tmp_path / "report" / "images").iterdir()}
    assert len(pictures) == len({image for image, _ in mistakes}) + len(mistakes)
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('class="map"') == len(mistakes)
    assert "have no map" not in page
    image, name = run.explanations.pairs[0]
    model = load_model(work_dir / "best.pth", weights="raw")
    expected = explain(model, f"{run.image_folder}/{image}", [run.classes.index(name)], run.explanations.maps.shape[1:])
    np.testing.assert_allclose(run.explanations.maps[0] / 255, expected[0], atol=0.02)


def test_a_report_does_not_take_the_place_of_a_runs_scores(scored, data):
    work_dir, _ = scored
    before = (work_dir / "scores.json").read_bytes()
    refused("report", [work_dir, "--out", work_dir], work_dir, "is a run folder", "choose another")
    assert (work_dir / "scores.json").read_bytes() == before


def test_thresholds_of_a_run_decide_which_labels_are_shown(scored, tmp_path):
    work_dir, _ = scored
    run = read_run(work_dir)
    status, _, err = call("thresholds", [work_dir, "--objective", "recall=0.6", "--out", tmp_path / "chosen.json"])
    assert status == 0, err
    limits = json.loads((tmp_path / "chosen.json").read_text())["thresholds"]
    pictures = [f"{run.image_folder}/{name}" for name in run.images]
    arguments = [work_dir / "best.pth", *pictures, "--json", "--weights", "raw"]
    status, out, err = call("predict", [*arguments, "--thresholds", tmp_path / "chosen.json"])
    assert status == 0, err
    above = run.probabilities > np.array([limits[name] for name in CLASSES])
    for line, row in zip(out.splitlines(), above, strict=True):
        shown = {label["label"] for label in json.loads(line)["labels"]}
        assert shown == {name for name, there in zip(CLASSES, row, strict=True) if there}
    assert 0 < above.sum() < above.size


def test_thresholds_for_other_classes_are_refused(scored, tmp_path):
    work_dir, _ = scored
    file = {"format": "tresnet_downstream.thresholds", "version": 1, "task": "multilabel", "objective": "f1"}
    file |= {"scope": "global", "borrowed": [], "short": [], "chosen_on": {}, "thresholds": {"disc": 0.5}}
    (tmp_path / "other.json").write_text(json.dumps(file))
    picture = f"{read_run(work_dir).image_folder}/val_00.jpg"
    arguments = [work_dir / "best.pth", picture, "--thresholds", tmp_path / "other.json"]
    refused("predict", arguments, "other.json: lacks 2 of the 3 classes, such as 'square'")


def test_weights_that_give_nan_are_reported_with_the_first_image(scored, data, tmp_path):
    checkpoint = torch.load(scored[0] / "best.pth", weights_only=True)
    weights = checkpoint["state_dict"]
    head = next(weight for name, weight in weights.items() if name.startswith("head.") and weight.dim() == 2)
    head[:, ::2], head[:, 1::2] = 3e38, -3e38  # finite, but infinity less infinity in the sum
    torch.save(checkpoint, tmp_path / "nan.pth")
    arguments = [DIGITS, tmp_path / "nan.pth", "--work-dir", tmp_path / "work", "--weights", "raw", *options(data)]
    refused("test_multilabel", arguments, "NaN for 'val_00.jpg'")
    assert not (tmp_path / "work" / "run.json").exists()


def test_configs_of_the_other_task_are_reported_by_both_tools(tmp_path):
    detector = str(ROOT / "configs" / "digits_retinanet_tresnet.py")
    refused("train_multilabel", [detector, "--work-dir", tmp_path], "is for a detector", "tools/train_detection.py")
    pytest.importorskip("mmdet", reason="needs the detection set-up")
    refused(
        "train_detection",
        [DIGITS, "--work-dir", tmp_path],
        "is for a multi-label classifier",
        "train_multilabel.py",
    )
    refused("train_detection", [FOLDERS, "--work-dir", tmp_path], "is for a classifier", "train_classifier.py")


def left_out(path):
    """The images that a table names, each with a reason."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["reason"] for row in rows)
    return [row["image"] for row in rows]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_that_a_training_leaves_out_are_named(data, tmp_path, num_workers):
    data = shutil.copytree(data, tmp_path / "data")
    content = json.loads((data / "train.json").read_text())
    content["images"] += [{"id": 90, "file_name": "no_label.jpg"}]
    (data / "train.json").write_text(json.dumps(content))
    for name in ("train_03.jpg", "train_04.jpg"):
        (data / "pictures" / name).write_bytes(b"")
    printed = train(data, tmp_path / "work", max_epochs=2, on_bad_image="skip", num_workers=num_workers)
    file = tmp_path / "work/left_out_train.csv"
    assert sorted(left_out(file)) == ["no_label.jpg", "train_03.jpg", "train_04.jpg"]
    assert f"keep_empty=True keeps them; {file} lists them" in printed
    assert printed.count(f"train: 2 images cannot be read; {file} lists them") == 1


def test_a_resumed_training_keeps_the_names_of_unreadable_images(data, tmp_path):
    data = shutil.copytree(data, tmp_path / "data")
    for name in ("train_03.jpg", "val_03.jpg"):
        (data / "pictures" / name).write_bytes(b"")
    train(data, tmp_path / "work", on_bad_image="skip")
    files = [tmp_path / "work" / f"left_out_{split}.csv" for split in ("train", "val")]
    before = [file.read_text() for file in files]
    train(data, tmp_path / "work", "--resume", on_bad_image="skip")  # nothing is left to do
    assert [file.read_text() for file in files] == before
    shutil.copy(data / "pictures" / "train_04.jpg", data / "pictures" / "train_03.jpg")
    (data / "pictures" / "train_05.jpg").write_bytes(b"")
    train(data, tmp_path / "work", "--resume", on_bad_image="skip", max_epochs=3)
    assert left_out(files[0]) == ["train_03.jpg", "train_05.jpg"]
    assert left_out(files[1]) == ["val_03.jpg"]


def test_the_scored_data_is_printed_and_stored(data, tmp_path):
    data = shutil.copytree(data, tmp_path / "data")
    content = json.loads((data / "val.json").read_text())
    content["images"] += [{"id": 90, "file_name": "val_00_unlabelled.jpg"}]
    (data / "val.json").write_text(json.dumps(content))
    spoilt = ("val_03.jpg", "val_10.jpg")
    (data / "pictures" / spoilt[0]).write_bytes(b"")
    (data / "pictures" / spoilt[1]).unlink()
    changes = {"on_bad_image": "skip", "num_workers": 2, "batch_size": 3}
    work_dir = tmp_path / "run"
    printed = train(data, work_dir, max_epochs=2, **changes)
    # Validation leaves them out as well, and says so once.
    assert printed.count("2 of 11 images cannot be read and are not scored") == 1
    assert f"val: 2 images cannot be read; {work_dir / 'left_out_val.csv'} lists them" in printed
    assert left_out(work_dir / "left_out_val.csv") == ["val_00_unlabelled.jpg", *spoilt]
    assert not (work_dir / "left_out_train.csv").exists()
    arguments = [DIGITS, work_dir / "best.pth", "--work-dir", work_dir, "--report", tmp_path / "report"]
    status, out, err = call("test_multilabel", [*arguments, *options(data, **changes)])
    assert status == 0, err
    assert "1 without a label left out" in out
    assert f"{work_dir / 'left_out.csv'} lists them" in out
    assert f"wrote {work_dir / 'left_out.csv'}" in out.splitlines()
    assert left_out(work_dir / "left_out.csv") == ["val_00_unlabelled.jpg", *spoilt]
    assert "2 of 11 images cannot be read and are not scored" in out
    run = read_run(work_dir)
    assert run.images == [f"val_{number:02}.jpg" for number in range(11) if number not in (3, 10)]
    assert run.about["images"] == {
        "listed": 12,
        "scored": 9,
        "without label, left out": 1,
        "unreadable, left out": 2,
    }
    assert list(run.about["unreadable"]) == list(spoilt)
    assert (run.about["image_size"], run.about["pipeline"]) == ("32 x 32", "SquashResize(size=32)")
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "val&#95;03.jpg, val&#95;10.jpg" in text
    assert "listed 12, scored 9" in text
    assert "in left&#95;out.csv of the run folder" in text


def test_pictures_that_cannot_be_read_end_scoring_by_default(scored, data, tmp_path):
    data = shutil.copytree(data, tmp_path / "data")
    (data / "pictures/val_03.jpg").write_bytes(b"")
    arguments = [DIGITS, scored[0] / "best.pth", "--work-dir", tmp_path / "work", *options(data)]
    refused("test_multilabel", arguments, "val_03.jpg", "on_bad_image=skip")
