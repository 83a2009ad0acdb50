"""Fixtures of all tests: no network access, fixed seeds, and one small detector for the tests that need one."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes of the tests share the cores; read as torch starts

import pytest
import torch
from detection.small_boxes import make_boxes, train
from running.small_data import forget_mmengine


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """The user's cache folder stays as it is, and hypothesis leaves no folder in the one where tests are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRESNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path_factory.mktemp("hypothesis")))
        yield


@pytest.fixture(autouse=True)
def _alone():
    """Every test has the seed 0, and no scope of components and no log of a run that an earlier test left."""
    torch.manual_seed(0)
    yield
    forget_mmengine()


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    """A folder of small pictures with boxes in COCO's format."""
    return make_boxes(tmp_path_factory.mktemp("boxes") / "data")


@pytest.fixture(scope="session")
def trained_detector(boxes, tmp_path_factory):
    """The work dir of a detector that was trained on them for two epochs, and what was printed."""
    work_dir = tmp_path_factory.mktemp("trained_detector")
    return work_dir, train(boxes, work_dir)
