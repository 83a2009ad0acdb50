"""Reports from run folders: numbers compared with other libraries, written files, and errors."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from evaluation.small_runs import ODD_NAMES, detection_run, multilabel_run
from PIL import Image
from running.small_data import call
from sklearn.metrics import average_precision_score

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import multilabel_scores, write_report
from tresnet_downstream.evaluation.bootstrap import bootstrap_ap, interval, mean_over_classes, resample_weights
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.thresholds import Thresholds


def numbers(folder):
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def of_page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def report(tmp_path):
    """A run and the folder of its report."""
    run = multilabel_run(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "report", resamples=100)
    return run, tmp_path / "report"


# --- numbers


def test_ap_is_that_of_scikit_learn(report):
    run, folder = report
    (found,) = numbers(folder)["runs"]
    expected = [100 * average_precision_score(run.targets[:, c], run.probabilities[:, c]) for c in range(8)]
    assert [row["ap"] for row in found["per_class"]] == pytest.approx(expected, abs=1e-9)
    assert found["headline"]["mAP"]["value"] == pytest.approx(np.mean(expected), abs=1e-9)


def test_one_image_gives_no_interval(tmp_path):
    multilabel_run(tmp_path / "run", num_images=1)
    write_report([tmp_path / "run"], tmp_path / "report", resamples=100)
    assert numbers(tmp_path / "report")["runs"][0]["headline"]["mAP"] == {"value": 100, "interval": [None, None]}


def test_interval_is_that_of_the_bootstrap(report):
    run, folder = report
    content = numbers(folder)
    samples = mean_over_classes(bootstrap_ap(run.probabilities, run.targets, resample_weights(120, 100)))
    mean = multilabel_scores(run.probabilities, run.targets).mAP
    assert content["runs"][0]["headline"]["mAP"]["interval"] == pytest.approx(interval(samples, mean), abs=1e-9)
    assert content["bootstrap"] == {
        "resamples": 100,
        "seed": 0,
        "level": 0.95,
        "method": "basic",
        "method_of_classes": "percentile",
    }


def test_ties_and_the_order_of_images_have_no_influence(tmp_path):
    run = multilabel_run(tmp_path / "a")
    order = np.random.default_rng(1).permutation(120)
    for name, rows in (("a", np.arange(120)), ("b", order)):
        multilabel_run(
            tmp_path / name,
            probabilities=np.round(run.probabilities, 1)[rows],  # some ten images of each score
            targets=run.targets[rows],
            images=[run.images[row] for row in rows],
        )
        write_report([tmp_path / name], tmp_path / f"report_{name}", resamples=0)
    one, other = (numbers(tmp_path / f"report_{name}")["runs"][0] for name in "ab")
    assert one["per_class"] == other["per_class"]
    assert one["headline"] == other["headline"]
    expected = [
        100 * average_precision_score(run.targets[:, c], np.round(run.probabilities, 1)[:, c]) for c in range(8)
    ]
    assert [row["ap"] for row in one["per_class"]] == pytest.approx(expected, abs=1e-9)


def test_a_class_that_is_never_present_has_no_scores_and_no_part_in_the_mean(tmp_path):
    run = multilabel_run(tmp_path / "run")
    run.targets[:, 2] = 0
    multilabel_run(tmp_path / "run", targets=run.targets)
    write_report([tmp_path / "run"], tmp_path / "report", resamples=100)
    (found,) = numbers(tmp_path / "report")["runs"]
    assert found["per_class"][2]["ap"] is found["per_class"][2]["ap_low"] is None
    others = [row["ap"] for row in found["per_class"] if row["ap"] is not None]
    assert len(others) == 7
    assert found["headline"]["mAP"]["value"] == pytest.approx(np.mean(others))
    assert "Classes without a positive here have no AP: كلب صغير." in of_page(tmp_path / "report")


def test_a_class_that_every_image_has_is_named(tmp_path):
    run = multilabel_run(tmp_path / "run", classes=("cat", "dog", "cow"))
    targets = run.targets.copy()
    targets[:, 0] = 1
    targets[:, 1] = np.where(targets[:, 1] == 0, -1, targets[:, 1])  # unknown ones are no negatives
    multilabel_run(tmp_path / "run", classes=("cat", "dog", "cow"), targets=targets)
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "Classes without a negative here have an AP of 100 for any network: cat, dog." in text


def test_a_run_without_any_positive_is_reported(tmp_path):
    run = multilabel_run(tmp_path / "run")
    multilabel_run(tmp_path / "run", targets=np.zeros_like(run.targets))
    write_report([tmp_path / "run"], tmp_path / "report", resamples=100)
    assert numbers(tmp_path / "report")["runs"][0]["headline"]["mAP"] == {"value": None, "interval": [None, None]}


def test_runs_without_any_positive_cannot_be_compared_and_nothing_is_called_nan(tmp_path):
    run = multilabel_run(tmp_path / "a")
    for name in "ab":
        multilabel_run(tmp_path / name, targets=np.zeros_like(run.targets))
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=100)
    page = of_page(tmp_path / "report")
    assert "mAP of a and b cannot be compared: one of them is undefined on these images." in page
    assert not re.search(r"\bnan\b", re.sub("<script.*?</script>|<svg.*?</svg>", "", page, flags=re.DOTALL))


def test_given_thresholds_take_the_place_of_the_runs_own(tmp_path):
    run = multilabel_run(tmp_path / "run")
    limits = np.linspace(0.2, 0.9, 8)
    given = Thresholds(
        dict(zip(ODD_NAMES, limits.tolist(), strict=True)), "multilabel", "f1", "per-class", (), (), {"run": "x"}
    )
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0, thresholds=given)
    (found,) = numbers(tmp_path / "report")["runs"]
    expected = multilabel_scores(run.probabilities, run.targets, threshold=limits)
    assert found["headline"]["at_threshold/OF1"]["value"] == pytest.approx(expected.at_threshold.OF1)
    assert [row["threshold"] for row in found["per_class"]] == limits.tolist()
    assert numbers(tmp_path / "report")["thresholds"]["chosen_on"] == {"run": "x"}
    assert "the thresholds: f1, per-class, chosen on x" in of_page(tmp_path / "report")
    assert "OF1, chosen thresholds" in of_page(tmp_path / "report")
    with pytest.raises(UserError, match="the thresholds: chosen for detection, not for multilabel"):
        write_report([tmp_path / "run"], tmp_path / "report", thresholds=replace(given, task="detection"))


# --- files


def test_the_same_content_is_written_in_every_form(report):
    _, folder = report
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    plots = ("precision_recall", "ap_against_support", "thresholds", "reliability", "confusions")
    assert {"report.html", "report.md", "scores.json", "per_class.csv"} <= files
    assert {f"plots/{name}.svg" for name in plots} <= files
    assert any(name.startswith("images/images_") for name in files)
    with (folder / "per_class.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(ODD_NAMES)
    found = numbers(folder)["runs"][0]
    assert [float(row["ap"]) for row in rows] == [row["ap"] for row in found["per_class"]]
    mean = f"{found['headline']['mAP']['value']:.2f}"
    assert mean in of_page(folder)
    assert f"| mAP | {mean} |" in (folder / "report.md").read_text(encoding="utf-8")
    for name in re.findall(r"\]\(((?:plots|images)/[^)]+)\)", (folder / "report.md").read_text(encoding="utf-8")):
        assert name in files


def test_the_page_names_where_a_figure_comes_from(report):
    _, folder = report
    page = of_page(folder)
    for text in ("ImageClassifier + TResNet + LinearHead", "work/best.pth", "torch 2.14.1", "2026-11-21T12:00:00"):
        assert text in page
    assert page.index(">mAP<") < page.index("<details>") < page.index("work/best.pth")
    assert numbers(folder)["runs"][0]["about"]["command"] == "python tools/test_multilabel.py"


def test_the_page_makes_no_network_requests(report):
    page = of_page(report[1])
    assert "default-src 'none'" in page
    addresses = set(re.findall(r"""(?:src|href|url\()=?["']?((?:https?:)?//[^"' )>]+)""", page))
    assert not addresses


def test_class_names_are_text_in_every_form(report):
    _, folder = report
    page = of_page(folder)
    assert "<script>document" not in page
    assert "&lt;script&gt;document.title=" in page
    assert page.count("<script") == 2  # the data and the page's own
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "&#42;bold&#42; &#91;link&#93;(x) &#96;code&#96;" in markdown
    for name in ("كلب صغير", "自転車に乗る人"):
        assert name in page
        assert name in markdown
    # matplotlib would set $x_1$ as mathematics and leave "_leading" out of legends.
    drawn = (folder / "plots" / "confusions.svg").read_text(encoding="utf-8")
    assert ">cash $x_1$ | pipe<" in drawn
    assert ">自転車に乗る人<" in drawn
    assert "<script" not in drawn


def test_missing_images_have_a_placeholder_and_are_counted(tmp_path):
    multilabel_run(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    page = of_page(tmp_path / "report")
    count, total = map(int, re.search(r"(\d+) of the (\d+) images shown here cannot be read", page).groups())
    assert 0 < count < total
    assert page.count('class="missing"') >= count
    shutil.rmtree(tmp_path / "pictures")
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    assert f"{total} of the {total} images shown here cannot be read" in of_page(tmp_path / "report")


def test_moved_images_are_read_from_the_given_folder(tmp_path):
    multilabel_run(tmp_path / "run", num_images=40)
    shutil.rmtree(tmp_path / "pictures")
    multilabel_run(tmp_path / "moved" / "run", num_images=80)  # writes pictures of the first 40 names
    write_report(tmp_path / "run", tmp_path / "report", resamples=0, images=tmp_path / "moved" / "pictures")
    assert 'class="missing"' not in of_page(tmp_path / "report")


def test_an_image_that_cannot_be_read_is_a_missing_one(tmp_path):
    multilabel_run(tmp_path / "run")
    for path in (tmp_path / "pictures").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    assert "data:image/jpeg" not in of_page(tmp_path / "report")


def test_a_report_is_the_same_when_it_is_written_again(report, tmp_path):
    folder = report[1]
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_report([tmp_path / "run"], folder, resamples=100)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_files_of_an_older_report_are_removed_and_no_others(tmp_path):
    multilabel_run(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    (tmp_path / "report" / "images" / "holiday.jpg").write_bytes(b"mine")
    run = multilabel_run(tmp_path / "run")
    multilabel_run(tmp_path / "run", probabilities=run.targets.astype(np.float32))  # without a mistake
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    assert [path.name for path in (tmp_path / "report" / "images").iterdir()] == ["holiday.jpg"]
    assert not (tmp_path / "report" / "plots" / "confusions.svg").exists()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_curves_say_where_their_axes_are(count):
    """The page's script draws within this frame: the box that matplotlib draws behind the axes."""
    lines = [(f"line-{number}", f"legend {number}", np.array([0.2, 1]), np.array([0, 1])) for number in range(count)]
    drawn, frame = plots.curves(lines, "recall", "precision")
    box = re.search(r'<g id="patch_2">\s*<path d="M ([\d.]+) ([\d.]+)\s*L ([\d.]+) [\d.]+\s*L [\d.]+ ([\d.]+)', drawn)
    assert frame == pytest.approx([float(number) for number in box.groups()], abs=1e-3)


def test_text_in_plots_is_left_as_it_is():
    """Colours and ids are those of the page, but a class may be called like one."""
    names = ["#0072b2", "url(#x)", 'href="#y"', "plain"]
    drawn = plots.matrix(np.ones((4, 4), int), names, "missed", "found")
    page = plots.in_page(drawn, "figure")
    assert ">#0072b2<" in page
    assert ">url(#x)<" in page
    assert "var(--series-1)" in page
    assert 'id="figure-' in page
    assert re.findall(r'\bid="(?!figure-)', page) == []


# --- several runs


def test_runs_are_compared_with_their_differences(tmp_path):
    multilabel_run(tmp_path / "a")
    multilabel_run(tmp_path / "b", seed=1, gain=1.0)
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=100)
    content = numbers(tmp_path / "report")
    a, b = (run["headline"]["mAP"]["value"] for run in content["runs"])
    difference = next(row for row in content["differences"] if row["score"] == "mAP")
    assert difference["run"] == "b"
    assert difference["difference"] == pytest.approx(b - a)
    low, high = difference["interval"]
    assert 0 < low < b - a < high
    page = of_page(tmp_path / "report")
    assert f"mAP of b is {b - a:.2f} points above that of a on these 120 images" in page
    assert "It says nothing about another training" in page
    with (tmp_path / "report" / "per_class.csv").open(encoding="utf-8") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["a"] * 8 + ["b"] * 8


def test_a_difference_that_may_be_chance_is_not_called_better(tmp_path):
    multilabel_run(tmp_path / "a")
    multilabel_run(tmp_path / "b", seed=2)
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=100)
    assert "these images do not show which of the two is better" in of_page(tmp_path / "report")


def test_pairing_makes_the_interval_of_a_difference_narrower(tmp_path):
    multilabel_run(tmp_path / "a")
    multilabel_run(tmp_path / "b", seed=1)
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=200)
    content = numbers(tmp_path / "report")
    widths = [np.diff(run["headline"]["mAP"]["interval"])[0] for run in content["runs"]]
    paired = next(row["interval"] for row in content["differences"] if row["score"] == "mAP")
    assert np.diff(paired)[0] < 0.75 * np.hypot(*widths)


def test_runs_in_another_order_of_images_and_classes_are_brought_into_line(tmp_path):
    run = multilabel_run(tmp_path / "a")
    rows, columns = np.random.default_rng(0).permutation(120), np.random.default_rng(1).permutation(8)
    multilabel_run(
        tmp_path / "b",
        probabilities=run.probabilities[np.ix_(rows, columns)],
        targets=run.targets[np.ix_(rows, columns)],
        images=[run.images[row] for row in rows],
        classes=[ODD_NAMES[column] for column in columns],
    )
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=0)
    assert all(row["difference"] == pytest.approx(0, abs=1e-5) for row in numbers(tmp_path / "report")["differences"])
    assert "mAP of b is the same as that of a on these 120 images, to two decimals." in of_page(tmp_path / "report")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda run: {"images": ["new.jpg", *run.images[1:]]}, r"120 and 120 images, 1 that a has alone, such as '000"),
        (
            lambda run: {"classes": ("cat", *ODD_NAMES[1:])},
            "8 and 8 classes, .* 1 that b has alone, such as 'cat'",
        ),
        (
            lambda run: {"targets": np.where(np.arange(120)[:, None] == 9, -1, run.targets).astype(np.int8)},
            r"image '009\.jpg' has the targets 0 and -1 for the class",
        ),
    ],
)
def test_runs_that_cannot_be_compared_say_how_they_differ(tmp_path, changed, message):
    run = multilabel_run(tmp_path / "a")
    multilabel_run(tmp_path / "b", **changed(run))
    with pytest.raises(UserError, match=f"a and b cannot be compared: .*{message}"):
        write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_runs_scored_at_other_thresholds_say_so(tmp_path):
    multilabel_run(tmp_path / "a")
    multilabel_run(tmp_path / "b", threshold=0.7, top_k=1)
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=0)
    page = of_page(tmp_path / "report")
    assert page.count("OF1, score &gt; 0.5 / OF1, score &gt; 0.7") == 2
    assert [(run["threshold"], run["top_k"]) for run in numbers(tmp_path / "report")["runs"]] == [(0.5, 3), (0.7, 1)]


def test_runs_are_named_by_the_differing_parts_of_their_paths(tmp_path):
    for name in ("x/run", "y/run"):
        multilabel_run(tmp_path / name)
    folders = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    write_report(folders, tmp_path / "report", resamples=0)
    assert [run["name"] for run in numbers(tmp_path / "report")["runs"]] == ["x/run", "y/run"]
    write_report(folders, tmp_path / "report", names=["old", "<new>"], resamples=0)
    assert "&lt;new&gt;" in of_page(tmp_path / "report")
    with pytest.raises(UserError, match="names: there are 2 runs, and names for 1"):
        write_report(folders, tmp_path / "report", names=["old"])
    for names in (["a", "a"], ["a", ""]):
        with pytest.raises(UserError, match="are not different for each run"):
            write_report(folders, tmp_path / "report", names=names)
    with pytest.raises(UserError, match="y/run: is named twice"):
        write_report([*folders, folders[1]], tmp_path / "report")


# --- detectors


def test_detection_scores_are_those_of_pycocotools(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    from evaluation.test_detection_scores import IDS, NAMES, pycocotools_of

    run = detection_run(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "report", resamples=100)
    (found,) = numbers(tmp_path / "report")["runs"]
    expected = pycocotools_of(run.ground_truth, run.predictions["bbox"])
    headline = [score["value"] for score in found["headline"]["bbox"].values()]
    assert headline == pytest.approx((100 * expected.stats).tolist(), abs=1e-12)
    precision = expected.eval["precision"]
    by_id = sorted(IDS)
    for row, name, number in zip(found["per_class"], NAMES, IDS, strict=True):
        values = precision[:, :, by_id.index(number), 0, -1]
        assert row["class"] == name
        assert row["ap"] == (None if name == "never" else pytest.approx(100 * values.mean(), abs=1e-12))
    table = found["ap_by_size_and_iou"]["bbox"]
    for size in range(4):
        of_size = precision[:, :, :, size, -1]
        means = [100 * values[values > -1].mean() for values in of_size]
        assert table[size] == pytest.approx(means, abs=1e-12)
    low, high = found["headline"]["bbox"]["AP"]["interval"]
    assert low < headline[0] < high
    assert sum(found["errors"]["bbox"]["counts"].values()) > 10


def test_the_order_of_images_and_objects_in_a_detectors_files_has_no_influence(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    run = detection_run(tmp_path / "a")
    boxes = [{**box, "score": round(box["score"], 1)} for box in run.predictions["bbox"]]  # many ties between images
    detection_run(tmp_path / "a", predictions={"bbox": boxes})
    by_image = sorted(boxes, key=lambda box: -box["image_id"])
    truth = {**run.ground_truth, "images": run.ground_truth["images"][::-1]}
    detection_run(tmp_path / "b", predictions={"bbox": by_image}, ground_truth=truth, image_ids=run.image_ids[::-1])
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=100)
    one, other = numbers(tmp_path / "report")["runs"]
    assert one["headline"] == other["headline"]
    assert one["per_class"] == other["per_class"]


def test_a_detectors_report_has_every_part(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    detection_run(tmp_path / "a")
    detection_run(tmp_path / "b", seed=1)
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=100)
    page = of_page(tmp_path / "report")
    for text in (
        "AP by size and IoU",
        "AP50 that each kind of error costs",
        "localisation",
        "minus a",
        "image not found",
    ):
        assert text in page
    assert re.search(r"AP IoU 0.50 to 0.95 of b is \d+\.\d\d points (above|below) that of a on these 40 images", page)
    assert 'class="box missed"' in page
    assert 'class="box right"' in page
    assert 'class="box wrong"' in page


def test_a_detector_that_finds_nothing_is_reported(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    detection_run(tmp_path / "run", predictions={"bbox": []})
    write_report([tmp_path / "run"], tmp_path / "report", resamples=100)
    (found,) = numbers(tmp_path / "report")["runs"]
    assert found["headline"]["bbox"]["AP"] == {"value": 0, "interval": [None, None]}
    assert found["errors"]["bbox"]["counts"]["missed"] > 20
    drawn = (tmp_path / "report" / "plots" / "errors.svg").read_text(encoding="utf-8")
    assert ">0.00<" in drawn
    assert "nan" not in drawn


def test_ignored_boxes_are_drawn_neither_right_nor_wrong(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    run = detection_run(tmp_path / "run")
    image, other = (given["id"] for given in run.ground_truth["images"][:2])
    truth = {
        "images": run.ground_truth["images"],
        "categories": run.ground_truth["categories"],
        "annotations": [
            {"id": 1, "image_id": image, "category_id": 7, "bbox": [10, 10, 50, 50]},
            {"id": 2, "image_id": image, "category_id": 7, "bbox": [200, 10, 90, 90], "iscrowd": 1},
            {"id": 3, "image_id": other, "category_id": 7, "bbox": [10, 10, 50, 50]},
        ],
    }
    boxes = [([10, 10, 50, 50], 0.99), ([220, 30, 40, 40], 0.98)]  # right, and on the crowd
    boxes += [([5, 200, 40, 40], 0.9 - 0.001 * number) for number in range(120)]  # 22 beyond the 100 of the picture
    rows = [{"image_id": image, "category_id": 7, "bbox": box, "score": score} for box, score in boxes]
    detection_run(tmp_path / "run", ground_truth=truth, predictions={"bbox": rows})
    limits = Thresholds(dict.fromkeys(run.classes, 0.1), "detection", "f1", "global", (), (), {})
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0, thresholds=limits)
    page = of_page(tmp_path / "report")
    assert page.count('class="box right"') == 1
    assert page.count('class="box wrong"') == 98
    assert "98 wrong, 0 missed of 1 objects" in page


def test_pictures_of_a_detector_have_their_boxes_in_the_files_too(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    multilabel_run(tmp_path / "other", num_images=80)
    for number in range(1, 41):
        shutil.copy(tmp_path / "pictures" / "000.jpg", tmp_path / "pictures" / f"{number}.jpg")
    detection_run(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "report", resamples=0)
    drawn = np.asarray(Image.open(tmp_path / "report" / "images" / "images_00.jpg")).astype(int)
    orange = abs(drawn - (240, 138, 69)).sum(2) < 60
    assert orange.sum() > 50


def test_masks_are_reported_beside_boxes(tmp_path):
    mask = pytest.importorskip("pycocotools.mask", reason="needs the detection set-up")
    run = detection_run(tmp_path / "run")

    def outline(box):
        left, top, width, height = box
        return [[left, top, left + width, top, left + width, top + height, left, top + height]]

    for annotation in run.ground_truth["annotations"]:
        annotation["segmentation"] = outline(annotation["bbox"])
        if annotation["iscrowd"]:
            (crowd,) = mask.frPyObjects(annotation["segmentation"], 300, 400)
            annotation["segmentation"] = {**crowd, "counts": crowd["counts"].decode()}
    rows = []
    for row in run.predictions["bbox"]:
        (found,) = mask.frPyObjects(outline(row["bbox"]), 300, 400)
        rows.append({**row, "segmentation": {**found, "counts": found["counts"].decode()}})
    detection_run(tmp_path / "run", ground_truth=run.ground_truth, predictions={"bbox": rows, "segm": rows})
    write_report([tmp_path / "run"], tmp_path / "report", resamples=100)
    (found,) = numbers(tmp_path / "report")["runs"]
    assert found["headline"].keys() == {"bbox", "segm"}
    assert found["headline"]["segm"]["AP50"]["value"] == pytest.approx(
        found["headline"]["bbox"]["AP50"]["value"], abs=5
    )
    page = of_page(tmp_path / "report")
    assert "Errors of masks" in page
    assert page.count("<table data-classes-table") == 2
    assert page.count(" data-chooses>") == 1


def test_detectors_that_cannot_be_compared_say_how_they_differ(tmp_path):
    run = detection_run(tmp_path / "a")
    annotations = [*run.ground_truth["annotations"]]
    annotations[4] = {**annotations[4], "bbox": [1.0, 1.0, 9.0, 9.0]}
    name = {image["id"]: image["file_name"] for image in run.ground_truth["images"]}[annotations[4]["image_id"]]
    detection_run(tmp_path / "b", ground_truth={**run.ground_truth, "annotations": annotations})
    with pytest.raises(UserError, match=f"a and b cannot be compared: image '{name}' has other objects"):
        write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report")
    detection_run(tmp_path / "b", image_ids=run.image_ids[:-1])
    with pytest.raises(UserError, match=r"40 and 39 images, 1 that a has alone, such as '40\.jpg'"):
        write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report")
    renamed = [{**image, "file_name": f"{51 - image['id'] // 10}.jpg"} for image in run.ground_truth["images"]]
    detection_run(tmp_path / "b", ground_truth={**run.ground_truth, "images": renamed})
    with pytest.raises(UserError, match="a and b cannot be compared"):
        write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report")
    multilabel_run(tmp_path / "c")
    with pytest.raises(UserError, match=r"one report: a \(a detector\), c \(multi-label\)"):
        write_report([tmp_path / "a", tmp_path / "c"], tmp_path / "report")


# --- the tool


def test_the_tool_writes_a_report_and_says_where_and_what_is_missing(tmp_path):
    multilabel_run(tmp_path / "run")
    status, out, err = call("report", [tmp_path / "run", "--out", tmp_path / "report", "--resamples", "100"])
    assert status == 0, err
    assert "images shown here cannot be read from" in out.splitlines()[0]
    assert out.splitlines()[1] == f"wrote {tmp_path / 'report' / 'report.html'}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "--out", "x"], "none: no such folder"),
        (["run", "--out", "x", "--resamples", "-1"], "resamples=-1: give 0 for no intervals, or at least 100"),
        (["run", "--out", "x", "--resamples", "99"], "resamples=99: give 0 for no intervals, or at least 100"),
        (["run", "--out", "x", "--seed", "-1"], "seed=-1: give a whole number, 0 or more"),
        (["run", "--out", "x", "--images", "none"], "none: no such folder of images"),
        (["run", "--out", "run"], "run: is a run folder, and the report would replace its scores"),
        (["run", "--out", "x", "--thresholds", "none.json"], "none.json: cannot be read"),
        (["run", "--out", "run/run.json"], "run.json: cannot be written to"),
    ],
)
def test_the_tool_ends_in_one_line_where_something_is_wrong(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    multilabel_run(tmp_path / "run", num_images=20)
    status, _, err = call("report", arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
