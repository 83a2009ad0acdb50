"""The lines that describe a data set before it is used."""

import pytest
from PIL import Image

from tresnet_downstream.classification.data_summary import pipeline_text, summary
from tresnet_downstream.classification.datasets import MultiLabelDataset

PIPELINE = [{"type": "SquashResize", "size": 16}]


@pytest.fixture
def made(tmp_path):
    """A function that makes a data set of the table given."""

    def made(table, **options):
        (tmp_path / "labels.csv").write_text(table)
        for line in table.splitlines():
            Image.new("RGB", (8, 8)).save(tmp_path / line.split(",")[0])
        return MultiLabelDataset("labels.csv", "", PIPELINE, data_root=str(tmp_path), **options)

    return made


def test_summary_lists_left_out_images_and_the_spread_of_positives(made):
    images, pictures = summary("train", made("a.png,cat;dog\nb.png,cat\nc.png,cow\nd.png,\n"), PIPELINE, "left_out.csv")
    assert images.startswith("train: 3 images of ")
    assert "1 without a label left out (keep_empty=True keeps them; left_out.csv lists them)" in images
    assert images.endswith("3 classes, in 1 ('cow') to 2 ('cat') images each")
    assert pictures == "train: images of 16 x 16 pixels by SquashResize(size=16)"


def test_class_in_every_image_is_a_warning_that_names_the_cause(made):
    *_, warning = summary("val", made("a.png,cat\nb.png,cat;dog\nc.png,\nd.png,\n"), PIPELINE, "left_out.csv")
    assert warning == (
        "warning: val: all images show the class 'cat', so its AP is 100 for any predictions; "
        "2 images without a label are left out, and keep_empty=True keeps them"
    )
    kept = made("a.png,cat\nb.png,cat;dog\nc.png,\nd.png,\n", keep_empty=True)
    assert not any(line.startswith("warning") for line in summary("val", kept, PIPELINE, "left_out.csv"))


def test_unknown_labels_do_not_count_as_negatives(made):
    *_, warning = summary("val", made("a.png,cat,dog\nb.png,cat;dog,\nc.png,cat;dog,\n"), PIPELINE, "left_out.csv")
    assert "all images show the classes 'cat', 'dog', so their AP is 100" in warning


def test_classes_without_an_image_are_a_warning(made):
    dataset = made("a.png,cat\nb.png,dog\n", classes=("cat", "dog", "cow", "ant", "bee", "fly"))
    *_, warning = summary("val", dataset, PIPELINE, "left_out.csv")
    assert warning == "warning: val: no image shows the classes 'cow', 'ant', 'bee' and 1 more"


def test_missing_files_are_a_warning(made, tmp_path):
    dataset = made("a.png,cat\nb.png,dog\n")
    (tmp_path / "b.png").unlink()
    dataset = MultiLabelDataset("labels.csv", "", PIPELINE, data_root=str(tmp_path), on_bad_image="skip")
    assert any("1 of 2 files are not in" in line for line in summary("train", dataset, PIPELINE, "left_out.csv"))


def test_pipelines_are_one_line():
    steps = [{"type": "SquashResize", "size": 448}, {"type": "RandAugment"}]
    assert pipeline_text(steps) == "SquashResize(size=448), RandAugment"
    assert pipeline_text([]) == "no transforms"
