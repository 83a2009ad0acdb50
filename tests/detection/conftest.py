"""One small detector, trained once for all tests of this folder."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import make_boxes, train


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    return make_boxes(tmp_path_factory.mktemp("boxes") / "data")


@pytest.fixture(scope="session")
def trained(boxes, tmp_path_factory):
    """The work dir of two epochs, and what was printed."""
    work_dir = tmp_path_factory.mktemp("trained")
    return work_dir, train(boxes, work_dir)
