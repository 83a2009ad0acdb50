"""The rules for faulty boxes, which training and the check of data share."""

import numpy as np
import pytest

from tresnet_downstream.box_faults import box_fault, clipped, other_convention

SIZE = (64, 48)


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([0, 0, 64, 48], None),
        ([10, 10, 54.9, 10], None),  # within the tolerance
        ([10, 10, 56, 10], "beyond-edge"),
        ([-2, 10, 5, 10], "beyond-edge"),
        ([64, 10, 5, 10], "outside"),
        ([-9, 10, 9, 10], "outside"),
        ([10, 10, 0, 10], "without-area"),
        ([10, 10, 5, -1], "without-area"),
    ],
)
def test_fault_of_a_box_depends_on_its_image(box, fault):
    assert box_fault(box, SIZE) == fault


def test_box_is_clipped_to_its_image():
    assert clipped([-5, 10, 20, 100], SIZE) == [0, 10, 15, 38]


@pytest.mark.parametrize(("share", "told"), [(0.0, False), (0.05, False), (0.2, True)])
def test_boxes_are_corners_if_a_tenth_of_them_fit_only_as_corners(share, told):
    boxes = np.tile([5.0, 5, 20, 20], (100, 1))
    boxes[: int(100 * share)] = [40, 30, 60, 45]
    assert (other_convention(boxes, np.tile(SIZE, (100, 1)).astype(float)) is not None) == told


def test_boxes_between_0_and_1_are_fractions_of_the_sides():
    assert "fractions" in (other_convention(np.full((3, 4), 0.25), np.full((3, 2), 64.0)) or "")
