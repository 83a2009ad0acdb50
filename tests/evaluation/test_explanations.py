"""Explanation maps of mistakes in run folders and reports, and their share inside boxes."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from evaluation.report.test_single_label import made
from evaluation.small_runs import multilabel_run
from PIL import Image

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import (
    multilabel_scores,
    read_run,
    write_multilabel_run,
    write_report,
    write_scored,
    write_single_label_run,
)
from tresnet_downstream.evaluation.explanations import mass_inside_boxes, mistakes_to_explain, stored_map
from tresnet_downstream.evaluation.outcomes import Explanations
from tresnet_downstream.heat_maps import overlay

SIDE = 8


def explained(run):
    """The run with a map for each mistake, bright in the left half."""
    pairs = [
        (run.images[row], run.classes[label]) for row, labels in mistakes_to_explain(run).items() for label in labels
    ]
    maps = np.zeros((len(pairs), SIDE, SIDE), np.uint8)
    maps[:, :, : SIDE // 2] = 255
    return replace(run, explanations=Explanations("Grad-CAM", pairs, maps))


@pytest.fixture
def run(tmp_path):
    """A multi-label run with maps, and its folder."""
    run = explained(multilabel_run(tmp_path / "run"))
    write_multilabel_run(run, tmp_path / "run")
    return run, tmp_path / "run"


# --- mass


def test_pixels_with_their_centre_in_a_box_count_as_inside():
    heat = np.ones((10, 20), np.float32)
    assert mass_inside_boxes(heat, np.array([[0, 0, 10, 5]])) == (0.25, 0.25)
    assert mass_inside_boxes(heat, np.array([[0, 0, 10, 5], [5, 0, 5, 5]])) == (0.25, 0.25)
    assert mass_inside_boxes(heat, np.array([[0.4, 0, 1, 10]])) == (0.05, 0.05)
    assert mass_inside_boxes(heat, np.zeros((0, 4))) == (0, 0)
    heat[:, 10:] = 0
    assert mass_inside_boxes(heat, np.array([[0, 0, 10, 5]])) == (0.5, 0.25)


def test_a_map_of_zeros_has_no_share():
    share, area = mass_inside_boxes(np.zeros((4, 4)), np.array([[0, 0, 2, 4]]))
    assert np.isnan(share)
    assert area == 0.5


# --- run folders


def test_maps_are_read_as_they_were_written(run):
    written, folder = run
    found = read_run(folder).explanations
    assert (found.method, found.pairs) == ("Grad-CAM", written.explanations.pairs)
    np.testing.assert_array_equal(found.maps, written.explanations.maps)
    assert found.by_pair()[found.pairs[0]].max() == 1
    write_multilabel_run(replace(written, explanations=None), folder)
    assert read_run(folder).explanations is None
    assert not list(folder.glob("explanations*"))


def test_the_mistakes_explained_are_those_that_reports_show(run, tmp_path):
    written, folder = run
    write_report(folder, tmp_path / "report", resamples=0)
    (found,) = json.loads((tmp_path / "report" / "scores.json").read_text())["runs"]
    shown = [(each["image"], each["class"]) for kind in ("false_positives", "false_negatives") for each in found[kind]]
    assert set(shown) == set(written.explanations.pairs)


def test_scores_with_and_without_maps_do_not_overwrite_each_other(run, tmp_path):
    written, _ = run
    written = replace(written, about={**written.about, "checkpoint_sha256": "0"})
    scores, out = multilabel_scores(written.probabilities, written.targets, written.classes), tmp_path / "out"
    paths = write_scored(scores, written, out)
    assert {path.name for path in paths} >= {"explanations.npy", "explanations.json", "run.json"}
    write_scored(scores, written, out)
    assert not (out / "earlier_1").exists()
    write_scored(scores, replace(written, explanations=None), out)
    assert read_run(out).explanations is None
    assert len(read_run(out / "earlier_1").explanations.pairs) == len(written.explanations.pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": np.zeros((1, 4, 4), np.uint8)}, r"the maps are uint8 of shape \(1, 4, 4\)"),
        ({"maps": np.zeros((2, 4, 4), np.float32)}, "the maps are float32"),
        ({"maps": np.zeros((2, 4, 5), np.uint8)}, "not uint8, 2 x side x side"),
        ({"pairs": [("none.jpg", "=1+1"), ("001.jpg", "=1+1")]}, "class '=1\\+1' in image 'none.jpg'"),
        ({"pairs": [("001.jpg", "=1+1"), ("001.jpg", "none")]}, "class 'none' in image '001.jpg'"),
    ],
)
def test_maps_that_cannot_be_read_again_are_not_written(run, change, message):
    written, folder = run
    right = {"pairs": [("001.jpg", "=1+1"), ("002.jpg", "=1+1")], "maps": np.zeros((2, 4, 4), np.uint8)}
    with pytest.raises(UserError, match=message):
        write_multilabel_run(replace(written, explanations=Explanations("x", **{**right, **change})), folder)
    assert read_run(folder).explanations is not None


def truncate(folder):
    path = folder / "explanations.npy"
    path.write_bytes(path.read_bytes()[:-9])


def other_pairs(text):
    return lambda folder: (folder / "explanations.json").write_text(text)


def other_key(value):
    def change(folder):
        content = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**content, "explanations": value}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "explanations.npy: cannot be read"),
        (lambda folder: (folder / "explanations.npy").unlink(), "explanations.npy is missing; score again"),
        (lambda folder: (folder / "explanations.json").unlink(), "explanations.json is missing; score again"),
        (other_pairs("[[1, 2]]"), "is not a list of images with classes"),
        (other_pairs('[["001.jpg", "=1+1"]]'), "the maps are uint8"),
        (other_pairs("{"), "explanations.json"),
        (other_key({"method": "x", "maps": 3, "side": 8}), "by run.json, but has shape"),
        (other_key({"method": "x", "maps": -3, "side": 8}), "`explanations` is .* not an object of method"),
        (other_key("many"), "`explanations` is 'many'"),
    ],
)
def test_damaged_maps_are_one_line(run, damage, message):
    damage(run[1])
    with pytest.raises(UserError, match=message):
        read_run(run[1])


# --- reports


def test_maps_stand_beside_the_mistakes(run, tmp_path):
    _, folder = run
    write_report(folder, tmp_path / "report", resamples=0)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "the regions that were relevant to a class (Grad-CAM" in page
    maps = sorted((tmp_path / "report" / "images").glob("*_map_*.jpg"))
    assert page.count('class="map"') == len(maps) > 0
    for path in maps:
        drawn, picture = (
            np.asarray(Image.open(p), int) for p in (path, path.with_name(re.sub(r"_map_\d+", "", path.name)))
        )
        assert drawn.shape == picture.shape
        half = drawn.shape[1] // 2
        colour = np.abs(drawn - drawn.mean(2, keepdims=True)).mean((0, 2))
        assert colour[: half - 6].mean() > 5 * colour[half + 6 :].mean()
    assert (tmp_path / "report" / "report.md").read_text().count("_map_") == len(maps)
    plain = replace(read_run(folder), explanations=None)
    write_multilabel_run(plain, tmp_path / "plain")
    write_report(tmp_path / "plain", tmp_path / "report", resamples=0)
    assert not list((tmp_path / "report" / "images").glob("*_map_*.jpg"))
    assert 'class="map"' not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_maps_follow_runs_in_another_order(run, tmp_path):
    written, folder = run
    order = np.arange(len(written.images))[::-1]
    other = replace(
        written,
        probabilities=written.probabilities[order][:, ::-1],
        targets=written.targets[order][:, ::-1],
        images=[written.images[row] for row in order],
        classes=written.classes[::-1],
    )
    write_multilabel_run(other, tmp_path / "other")
    write_report([folder, tmp_path / "other"], tmp_path / "report", resamples=0)
    maps = [path.name for path in (tmp_path / "report" / "images").glob("*_map_*.jpg")]
    assert sum("images_1_" in name for name in maps) == sum("images_0_" in name for name in maps) > 0
    assert "have no map" not in (tmp_path / "report" / "report.md").read_text()


def test_mistakes_without_a_map_are_counted(run, tmp_path):
    written, folder = run
    told = []
    write_report(folder, tmp_path / "whole", resamples=0, tell=told.append)
    assert not any("have no map" in note for note in told)
    kept = Explanations("Grad-CAM", written.explanations.pairs[3:], written.explanations.maps[3:])
    write_multilabel_run(replace(written, explanations=kept), folder)
    write_report(folder, tmp_path / "report", resamples=0, tell=told.append)
    assert any(f"3 of the {len(written.explanations.pairs)} mistakes shown here have no map" in note for note in told)


def test_single_label_maps_show_the_wrongly_predicted_class(tmp_path):
    folder = made(tmp_path / "run")
    written = explained(read_run(folder))
    (tmp_path / "run" / "pictures").mkdir()
    for image in written.images:
        Image.new("RGB", (40, 30), (90, 90, 90)).save(tmp_path / "run" / "pictures" / image)
    write_single_label_run(written, folder)
    wrong = written.probabilities.argmax(1) != written.labels
    taken = {
        (written.images[row], written.classes[written.probabilities[row].argmax()]) for row in np.flatnonzero(wrong)
    }
    assert set(read_run(folder).explanations.pairs) == taken
    write_report(folder, tmp_path / "report", resamples=0)
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('class="map"') == len(taken)


def test_a_run_without_mistakes_has_no_maps(run, tmp_path):
    written, _ = run
    right = replace(written, probabilities=(written.targets == 1).astype(np.float32), explanations=None)
    right = explained(right)
    assert right.explanations.pairs == []
    write_multilabel_run(right, tmp_path / "right")
    assert read_run(tmp_path / "right").explanations.maps.shape == (0, SIDE, SIDE)
    write_report(tmp_path / "right", tmp_path / "report", resamples=0)


# --- drawing


@pytest.mark.parametrize("size", [(30, 50), (1, 1), (7, 200)])
def test_an_overlay_is_grey_where_the_map_is_0(size):
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    cold = overlay(picture, np.zeros((3, 3)))
    assert cold.shape == picture.shape
    assert (cold == cold[:, :, :1]).all()
    hot = overlay(picture, np.ones((3, 3))).astype(int)
    assert (hot[:, :, 0] > hot[:, :, 2]).all()


def test_maps_are_stored_to_half_of_a_255th():
    heat = np.random.default_rng(0).random((5, 5))
    assert np.abs(stored_map(heat) / 255 - heat).max() <= 0.5 / 255 + 1e-9
