"""Small data sets of both tasks, copied for each test that changes them."""

import shutil

import pytest
from running.small_data import make_small_data


@pytest.fixture(scope="session")
def whole_labels(tmp_path_factory):
    return make_small_data(tmp_path_factory.mktemp("labels") / "data", 12, 6)


@pytest.fixture
def labels(whole_labels, tmp_path):
    """A folder of pictures with labels, for one test alone."""
    return shutil.copytree(whole_labels, tmp_path / "labels")


@pytest.fixture
def own_boxes(boxes, tmp_path):
    """A folder of pictures with boxes, for one test alone."""
    return shutil.copytree(boxes, tmp_path / "boxes")
