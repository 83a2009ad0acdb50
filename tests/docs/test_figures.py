"""Figures are on one page. If README.md or the first line of a config repeats a figure, it must be equal."""

import re
from pathlib import Path

import pytest

from tresnet_downstream.weights.catalogue import catalogue_table

ROOT = Path(__file__).parents[2]
NUMBER = r"(?<![\w.])\d+\.\d+(?![\w.]*\w)"


def rows(path):
    return [line for line in (ROOT / path).read_text().splitlines() if line.startswith("|")]


def readme_results():
    text = (ROOT / "README.md").read_text().split("## Results")[1].split("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("| ") and re.search(NUMBER, line)]


@pytest.mark.parametrize("row", readme_results(), ids=lambda row: row.split("|")[1].strip()[:50])
def test_the_results_of_the_readme_are_those_of_the_pages(row):
    config = re.match(r"\| `(\w+)`", row)
    if config:  # its row, or the sentence that names it
        lines = (ROOT / "docs" / "model_zoo.md").read_text().splitlines()
        there = [line for line in lines if f"`{config[1]}.py`" in line]
    else:
        there = rows("docs/performance.md") + rows("docs/results.md")
    missing = set(re.findall(NUMBER, row.split("|", 2)[2])) - set(re.findall(NUMBER, "\n".join(there)))
    assert not missing, f"not on the page: {missing}"


@pytest.mark.parametrize(
    "config",
    [path for path in sorted((ROOT / "configs").glob("*.py")) if "published" in path.read_text().splitlines()[0]],
    ids=lambda path: path.stem,
)
def test_the_published_score_in_a_config_is_that_of_the_model_zoo(config):
    figures = re.findall(r"published (?:mAP|top-1|AP) (\d+\.\d+)", config.read_text().splitlines()[0])
    (row,) = [row for row in rows("docs/model_zoo.md") if row.split("|")[1].split(",")[0].strip() == f"`{config.name}`"]
    assert set(figures) <= set(re.findall(NUMBER, row))


def test_the_table_of_public_weights_is_that_of_the_command():
    page = (ROOT / "docs" / "weights.md").read_text()
    table = re.search(r"## Public weights\n.+?```text\n(.+?)\n```", page, re.DOTALL)[1]
    assert table.splitlines() == [line.rstrip() for line in catalogue_table().splitlines()]
