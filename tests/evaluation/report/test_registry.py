"""Sections that users add appear on the page, in Markdown, in scores.json and in per_class.csv."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation.small_runs import multilabel_run

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import write_report
from tresnet_downstream.evaluation.report import Column, Figure, Section, Table, section
from tresnet_downstream.evaluation.report.registry import SECTIONS

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """The sections of one test are unknown to the next."""
    monkeypatch.setattr("tresnet_downstream.evaluation.report.registry.SECTIONS", dict(SECTIONS))


def own_section(data):
    means = [a.run.probabilities.mean(0) for a in data.analyses]
    return Section(
        "Mean <score>",
        tables=[Table([Column("class", "class", "text"), Column("mean", "mean")], [["cat", 12.5]])],
        figures=[Figure("means", "Means", "By class.", "<svg></svg>")],
        numbers={"own": 1},
        run_numbers=[{"mean": float(each.mean())} for each in means],
        class_numbers=[
            [{"class": name, "mean": float(value)} for name, value in zip(data.classes, each, strict=True)]
            for each in means
        ],
    )


def test_one_function_adds_to_page_markdown_json_and_csv(tmp_path):
    run = multilabel_run(tmp_path / "run", classes=CLASSES)
    section("multilabel")(own_section)
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("Mean &lt;score&gt;") == 2  # heading and contents
    assert "| cat | 12.50 |" in (tmp_path / "report/report.md").read_text()
    assert (tmp_path / "report/plots/means.svg").read_text() == "<svg></svg>"
    scores = json.loads((tmp_path / "report/scores.json").read_text())
    assert scores["own"] == 1
    assert scores["runs"][0]["mean"] == pytest.approx(run.probabilities.mean())
    with (tmp_path / "report/per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["mean"]) for row in rows], run.probabilities.mean(0), rtol=1e-6)
    assert all(row["ap"] for row in rows)


def test_a_plot_of_a_section_that_is_gone_is_removed(tmp_path):
    multilabel_run(tmp_path / "run", classes=CLASSES)
    section("multilabel")(own_section)
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    (tmp_path / "report/plots/mine.svg").write_text("mine")
    section("single_label")(own_section)  # takes the place of the other
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    names = {path.name for path in (tmp_path / "report/plots").iterdir()}
    assert "mine.svg" in names
    assert "means.svg" not in names
    assert "Mean &lt;score&gt;" not in (tmp_path / "report/report.html").read_text()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("text", "section own: must return a Section"),
        (Section("x", figures=[Figure("../x", "", "", "")]), r"the name '\.\./x' of a figure or gallery must consist"),
        (Section("x", figures=[Figure("thresholds", "", "", "")]), "the name 'thresholds' .* is repeated"),
    ],
)
def test_invalid_sections_are_refused(tmp_path, made, message):
    def own(data):
        return made

    multilabel_run(tmp_path / "run", classes=CLASSES)
    section()(own)
    with pytest.raises(UserError, match=message):
        write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    with pytest.raises(UserError, match="there is no task 'labels'"):
        section("labels")


def test_the_example_of_the_documentation(tmp_path):
    text = (Path(__file__).parents[3] / "docs/extending/report_section.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n# own_section\.py\n(.+?)```", text, re.DOTALL)
    run = multilabel_run(tmp_path / "run", classes=CLASSES)
    exec(example, {})
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    markdown = (tmp_path / "report/report.md").read_text()
    titles = re.findall("^## (.+)$", markdown, re.MULTILINE)
    assert titles.index("Labels of an image") == titles.index("Classes") + 1
    share = 100 * (run.probabilities > 0.5).mean()
    assert f"| run | {100 * run.targets.mean():.2f} | {share:.2f} |" in markdown
    (entry,) = json.loads((tmp_path / "report/scores.json").read_text())["runs"]
    assert entry["share_predicted"] == pytest.approx(share)
