"""Head, middle and tail: the rules, and their scores in tables, run folders and reports."""

import json
from dataclasses import replace

import numpy as np
import pytest
from evaluation.small_runs import multilabel_run
from sklearn.metrics import average_precision_score

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import (
    SingleLabelRun,
    format_single_label_table,
    format_table,
    multilabel_scores,
    read_run,
    single_label_scores,
    write_report,
    write_scores,
    write_single_label_run,
    write_single_label_scores,
)
from tresnet_downstream.evaluation.bootstrap import (
    bootstrap_ap,
    difference_interval,
    mean_over_classes,
    resample_weights,
)
from tresnet_downstream.evaluation.frequency_groups import (
    TrainingCounts,
    frequency_groups,
    group_scores,
    require_cutoffs,
)

CLASSES = tuple("abcdefgh")
COUNTS = TrainingCounts(dict(zip(CLASSES, (5000, 900, 101, 100, 60, 11, 10, 0), strict=True)))


def members(counts, classes=CLASSES):
    groups = frequency_groups(counts, classes)
    return {group.name: "".join(classes[c] for c in group.places) for group in groups}


def test_cutoffs_are_those_of_lvis():
    assert members(replace(COUNTS, cutoffs=(10, 100))) == {"head": "abc", "middle": "def", "tail": "gh"}
    assert members(replace(COUNTS, cutoffs=(5000, 6000))) == {"tail": "abcdefgh"}


def test_thirds_go_by_rank_whatever_the_order_of_the_classes():
    assert members(COUNTS) == {"head": "abc", "middle": "def", "tail": "gh"}
    assert {name: set(group) for name, group in members(COUNTS, CLASSES[::-1]).items()} == {
        "head": set("abc"),
        "middle": set("def"),
        "tail": set("gh"),
    }
    assert members(COUNTS, ("a", "c", "h")) == {"head": "a", "middle": "c", "tail": "h"}


def test_classes_of_equal_counts_stay_together():
    equal = TrainingCounts(dict(zip(CLASSES, (50, 9, 9, 9, 9, 9, 2, 1), strict=True)))
    assert members(equal) == {"head": "abcdef", "tail": "gh"}


@pytest.mark.parametrize(
    "counts",
    [
        None,
        TrainingCounts(dict.fromkeys(CLASSES[:7], 5)),  # does not know all classes
        TrainingCounts(dict(zip(CLASSES, range(50, 58), strict=True))),  # even
    ],
)
def test_there_are_no_groups_without_counts_and_of_even_classes(counts):
    assert frequency_groups(counts, CLASSES) == []


@pytest.mark.parametrize("value", [(100, 10), (10,), (1.5, 3), "10", (-1, 5), 10, (True, 4)])
def test_wrong_cutoffs_are_refused(value):
    with pytest.raises(UserError, match="frequency_cutoffs="):
        require_cutoffs(value)


def test_a_group_score_leaves_out_classes_without_one():
    scores = group_scores(frequency_groups(COUNTS, CLASSES), np.array([90, 80, np.nan, 1, 2, 3, np.nan, np.nan]))
    assert [each.score for each in scores][:2] == [85, 2]
    assert np.isnan(scores[2].score)


@pytest.fixture
def runs(tmp_path):
    """Two multi-label runs, of which the second is better; the first says what it was trained on."""
    names = multilabel_run(tmp_path / "one").classes
    training = TrainingCounts(dict(zip(names, (5000, 900, 101, 100, 60, 11, 10, 4), strict=True)))
    one = multilabel_run(tmp_path / "one", training=training)
    return one, multilabel_run(tmp_path / "two", seed=1, gain=0.5)


def test_a_run_folder_keeps_the_counts(runs, tmp_path):
    assert read_run(tmp_path / "one").training == runs[0].training or vars(read_run(tmp_path / "one").training) == vars(
        runs[0].training
    )
    assert read_run(tmp_path / "two").training is None
    content = json.loads((tmp_path / "one/run.json").read_text())
    for wrong in ({"images": {"x": -1}}, {"images": {"x": 2**70}}, {"images": {"x": 1}, "cutoffs": [3]}, [1]):
        (tmp_path / "one/run.json").write_text(json.dumps({**content, "training": wrong}))
        with pytest.raises(UserError, match="`training` is"):
            read_run(tmp_path / "one")


def test_tables_and_scores_have_a_row_for_each_group(runs, tmp_path):
    run = runs[0]
    scores = multilabel_scores(run.probabilities, run.targets, run.classes)
    assert "frequency" not in format_table(scores)
    groups = frequency_groups(run.training, run.classes)
    scores = replace(scores, by_frequency=group_scores(groups, scores.ap))
    tail = np.mean([100 * average_precision_score(run.targets[:, c], run.probabilities[:, c]) for c in (6, 7)])
    table = format_table(scores)
    assert "mAP by frequency in training" in table
    assert [line.split() for line in table.splitlines() if line.startswith("tail")] == [
        ["tail", f"{tail:.2f}", "2", "4", "to", "10"]
    ]
    path, _ = write_scores(scores, tmp_path / "scores")
    written = json.loads(path.read_text())["by_frequency"]
    assert [group["group"] for group in written] == ["head", "middle", "tail"]
    assert written[2]["score"] == pytest.approx(tail)
    assert written[2]["classes"] == list(run.classes[6:])
    assert written[2]["training_images"] == [4, 10]


def test_reports_have_intervals_and_paired_differences_of_each_group(runs, tmp_path):
    write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "report", resamples=100)
    content = json.loads((tmp_path / "report/scores.json").read_text())
    weights = resample_weights(120, 100)
    samples = [mean_over_classes(bootstrap_ap(run.probabilities, run.targets, weights)[:, 6:]) for run in runs]
    means = [content["runs"][place]["headline"]["mAP/tail"]["value"] for place in (0, 1)]
    (row,) = [row for row in content["differences"] if row["score"] == "mAP/tail"]
    assert row["difference"] == pytest.approx(means[1] - means[0])
    assert row["interval"] == pytest.approx(difference_interval(samples[1] - samples[0], means[1] - means[0]))
    page = (tmp_path / "report/report.md").read_text()
    assert "mAP, tail (2 classes, 4 to 10 training images)" in page
    assert "head, middle and tail are those of one" in page


def test_a_report_may_set_other_cutoffs_and_has_no_rows_without_counts(runs, tmp_path):
    write_report(tmp_path / "one", tmp_path / "report", resamples=0, frequency_cutoffs=(100, 1000))
    headline = json.loads((tmp_path / "report/scores.json").read_text())["runs"][0]["headline"]
    assert {key for key in headline if key.startswith("mAP/")} == {"mAP/head", "mAP/middle", "mAP/tail"}
    assert "mAP, head (1 class, 5,000 training images)" in (tmp_path / "report/report.md").read_text()
    write_report(tmp_path / "two", tmp_path / "other", resamples=0)
    assert "tail" not in (tmp_path / "other/report.md").read_text()
    with pytest.raises(UserError, match="frequency_cutoffs="):
        write_report(tmp_path / "one", tmp_path / "third", resamples=0, frequency_cutoffs=(5,))


def test_with_one_label_the_score_of_a_group_is_the_mean_accuracy_of_its_classes(tmp_path):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 8, 200)
    probabilities = draw.dirichlet(np.ones(8), 200).astype(np.float32)
    probabilities[np.arange(200), labels] += 0.2
    probabilities /= probabilities.sum(1, keepdims=True)
    scores = single_label_scores(probabilities, labels, CLASSES)
    groups = frequency_groups(COUNTS, CLASSES)
    scores = replace(scores, by_frequency=group_scores(groups, scores.recall))
    right = probabilities.argmax(1) == labels
    tail = np.mean([100 * right[labels == c].mean() for c in (6, 7)])
    assert f"{tail:.2f}" in next(line for line in format_single_label_table(scores).splitlines() if "tail" in line)
    path, _ = write_single_label_scores(scores, tmp_path / "scores")
    assert json.loads(path.read_text())["by_frequency"][2]["score"] == pytest.approx(tail)
    images = [f"{number}.jpg" for number in range(200)]
    run = SingleLabelRun(probabilities, labels, images, CLASSES, str(tmp_path), {}, training=COUNTS)
    write_single_label_run(run, tmp_path / "run")
    write_report(tmp_path / "run", tmp_path / "report", resamples=100)
    told = json.loads((tmp_path / "report/scores.json").read_text())["runs"][0]["headline"]["mean_per_class/tail"]
    assert told["value"] == pytest.approx(tail)
    low, high = told["interval"]
    assert low < tail < high
