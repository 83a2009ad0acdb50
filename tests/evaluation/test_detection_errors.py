"""Error kinds and their AP, compared with numbers that tidecv 1.0.1 computed for the same scenes."""

import math

import numpy as np
import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.detection_errors import KINDS, NOT_COUNTED, error_split
from tresnet_downstream.evaluation.detection_scores import detection_scores

pytest.importorskip("pycocotools", reason="needs the detection set-up")
from pycocotools import mask as mask_tools

ANT, BEE, CAT = 7, 3, 90
CATEGORIES = [{"id": ANT, "name": "ant"}, {"id": BEE, "name": "bee"}, {"id": CAT, "name": "cat"}]

# Image, class and box of each object; the same and score of each detection, and what it is.
OBJECTS = [
    (10, ANT, [0, 0, 100, 100]),
    (10, ANT, [150, 0, 100, 100]),
    (10, BEE, [300, 0, 80, 80]),
    (10, CAT, [0, 150, 100, 100]),
    (20, ANT, [0, 0, 100, 100]),
    (20, BEE, [150, 0, 100, 100]),
    (20, CAT, [300, 200, 50, 50]),
    (30, CAT, [0, 0, 50, 50]),
    (30, ANT, [100, 0, 50, 50]),
]
FOUND = [
    (10, ANT, [0, 0, 100, 90], 0.90, "right"),
    (10, ANT, [0, 0, 90, 100], 0.80, "duplicate"),
    (10, ANT, [150, 0, 40, 100], 0.70, "localisation"),
    (10, ANT, [150, 0, 45, 100], 0.60, "localisation"),  # of the same ant, which only one of them can find
    (10, CAT, [300, 0, 80, 78], 0.85, "classification"),
    (10, BEE, [0, 150, 30, 100], 0.66, "both"),
    (10, CAT, [350, 250, 40, 40], 0.75, "background"),
    (10, CAT, [0, 150, 100, 99], 0.20, "right"),
    (20, BEE, [150, 0, 100, 95], 0.65, "right"),
    (20, BEE, [0, 0, 100, 95], 0.95, "classification"),  # of an ant, which also the next two are due to
    (20, ANT, [0, 0, 45, 100], 0.55, "localisation"),
    (20, CAT, [0, 0, 100, 100], 0.35, "classification"),
    (20, ANT, [150, 0, 100, 100], 0.30, "classification"),  # of a bee that is found
    (30, ANT, [100, 0, 50, 50], 0.15, "right"),
]


def scene(objects, found, crowds=()):
    """Files of these objects and detections, on pictures of 400 x 300."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 400, "height": 300} for i in sorted({o[0] for o in objects})]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": int(n >= len(objects))}
        for n, (i, c, b) in enumerate([*objects, *crowds])
    ]
    detections = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s, *_ in found]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, detections


def random_scene(num_images=30, seed=0, copies=3):
    """Boxes and for each up to so many detections, some of another class and some far off."""
    draw = np.random.RandomState(seed)
    objects, found = [], []
    for image in range(1, num_images + 1):
        for _ in range(draw.randint(1, 8)):
            box = np.concatenate([draw.uniform(0, 200, 2), np.exp(draw.uniform(2.5, 5, 2))])
            category = CATEGORIES[draw.randint(3)]["id"]
            objects.append((image, category, box.tolist()))
            for _ in range(draw.randint(copies + 1)):
                off = (0.03, 0.1, 0.3)[draw.randint(3)]
                near = np.maximum(box + draw.normal(0, off, 4) * box[[2, 3, 2, 3]], 4).tolist()
                wrong = CATEGORIES[draw.randint(3)]["id"] if draw.random_sample() < 0.3 else category
                found.append((image, wrong, near, float(draw.random_sample())))
        side = draw.uniform(8, 90, 2).tolist()
        category = CATEGORIES[draw.randint(3)]["id"]
        place = [*draw.uniform(0, 250, 2).tolist(), *side]
        found.append((image, category, place, float(0.6 * draw.random_sample())))
    return scene(objects, found)


def with_triangles(truth, detections):
    """Masks of half of each box, and boxes that say nothing."""
    for thing in (*truth["annotations"], *detections):
        left, top, width, height = thing["bbox"]
        corners = [[left, top, left + width, top, left + width, top + height]]
        thing["segmentation"] = mask_tools.frPyObjects(corners, 300, 400)[0]
        thing["segmentation"]["counts"] = thing["segmentation"]["counts"].decode()
        thing["bbox"] = [0.0, 0.0, 1.0, 1.0]
    return truth, detections


# By scene: its maker and type of IoU; tidecv's counts and its points, both in the order of KINDS, and its AP50 and the
# gains without wrong detections and without objects that nothing finds.
TIDECV = {
    "one of each": (
        lambda: scene(OBJECTS, FOUND),
        "bbox",
        (4, 3, 1, 1, 1, 2),
        (
            34.45701713028451,
            8.093666509508108,
            2.805280528052805,
            0.39289643250040385,
            0.9350935093509385,
            5.528052805280527,
        ),
        (19.354078264969345, 25.53041018387554, 21.636806537796623),
    ),
    "boxes": (
        lambda: random_scene(seed=1),
        "bbox",
        (24, 35, 14, 32, 27, 32),
        (
            8.595639314695653,
            9.864139208801063,
            1.6328097616557287,
            2.6828411503642258,
            2.971274870601704,
            12.263806991299852,
        ),
        (33.53616542945252, 25.539742161306556, 22.469494149572867),
    ),
    "more than 100 in a picture": (
        lambda: random_scene(4, seed=1, copies=60),
        "bbox",
        (54, 82, 25, 207, 7, 0),
        (5.661046334947606, 6.107430603501413, 4.355578398608245, 5.302008350775324, 0.1046624712420865, 0.0),
        (46.77898015497481, 46.62035977901859, 3.0819258396427784),
    ),
    "masks": (
        lambda: with_triangles(*random_scene(12, seed=0)),
        "segm",
        (11, 21, 1, 10, 18, 13),
        (
            8.027704290080528,
            16.496785209656537,
            1.6679763214416852,
            1.2394289622012629,
            2.9037072321335415,
            10.537482319660533,
        ),
        (27.884645607417866, 29.87112997013989, 21.989627534181984),
    ),
}


def same(one, other):
    """Whether two splits hold the same numbers, the missed and the kinds by position left out."""
    return (one.counts, one.gain) == (other.counts, other.gain) and (
        (one.ap50, one.false_positive_gain, one.false_negative_gain)
        == (other.ap50, other.false_positive_gain, other.false_negative_gain)
    )


@pytest.mark.parametrize("name", TIDECV)
def test_counts_and_gains_are_those_of_tidecv(name):
    make, iou_type, counts, gains, (ap50, false_positive_gain, false_negative_gain) = TIDECV[name]
    split = error_split(*make(), iou_type=iou_type)
    assert split.counts == dict(zip(KINDS, counts, strict=True))
    assert split.gain == pytest.approx(dict(zip(KINDS, gains, strict=True)), abs=1e-9)
    assert split.ap50 == pytest.approx(ap50, abs=1e-9)
    assert split.false_positive_gain == pytest.approx(false_positive_gain, abs=1e-9)
    assert split.false_negative_gain == pytest.approx(false_negative_gain, abs=1e-9)


def test_every_detection_and_object_has_a_kind():
    split = error_split(*scene(OBJECTS, FOUND))
    assert [KINDS[kind] if kind >= 0 else "right" for kind in split.kind_of_detection] == [found[-1] for found in FOUND]
    assert split.kind_of_detection.dtype == np.int8
    assert split.missed.tolist() == [6, 7]


def test_ap50_is_that_of_pycocotools():
    for truth, detections in (scene(OBJECTS, FOUND), random_scene()):
        expected = detection_scores(truth, detections).headline["AP50"]
        assert error_split(truth, detections).ap50 == pytest.approx(expected, abs=1e-9)


def test_detections_on_a_crowd_are_neither_right_nor_wrong():
    truth, detections = scene(OBJECTS, FOUND, crowds=[(10, CAT, [340, 240, 60, 60]), (10, ANT, [0, 140, 300, 160])])
    on_crowd = {"image_id": 10, "category_id": ANT, "bbox": [0, 150, 100, 100], "score": 0.99}  # and on a cat
    half = {"image_id": 10, "category_id": ANT, "bbox": [200, 200, 200, 20], "score": 0.98}
    split = error_split(truth, [*detections, on_crowd, half])
    plain = error_split(*scene(OBJECTS, FOUND))
    assert split.kind_of_detection[-2:].tolist() == [NOT_COUNTED, NOT_COUNTED]
    assert split.kind_of_detection[6] == NOT_COUNTED  # a cat in the background, now on a crowd of them
    assert split.counts == {**plain.counts, "background": 0}
    assert split.gain["background"] == 0
    assert split.missed.tolist() == [6, 7]
    assert split.ap50 == pytest.approx(plain.ap50 + plain.gain["background"])
    assert split.ap50 == pytest.approx(detection_scores(truth, [*detections, on_crowd, half]).headline["AP50"])


def test_a_class_without_objects_counts_in_no_mean_but_its_detections_are_errors():
    truth, detections = scene(OBJECTS, FOUND)
    wider = {**truth, "categories": [*CATEGORIES, {"id": 12, "name": "never"}]}
    never = [{"image_id": 30, "category_id": 12, "bbox": [100, 0, 50, 50], "score": 0.9}]
    split, plain = error_split(wider, detections + never), error_split(truth, detections)
    assert split.counts == {**plain.counts, "classification": 5}
    assert (split.ap50, split.gain) == (plain.ap50, plain.gain)  # that ant is found by another


def test_equal_scores_rank_as_listed_whatever_is_put_right():
    right, wrong = (10, ANT, [0, 0, 100, 100], 0.5), (10, ANT, [200, 200, 50, 50], 0.5)
    first = error_split(*scene(OBJECTS[:1], [right, wrong]))
    assert (first.ap50, first.gain["background"], first.false_positive_gain) == (pytest.approx(100), 0, 0)
    last = error_split(*scene(OBJECTS[:1], [wrong, right]))
    assert (last.ap50, last.gain["background"], last.false_positive_gain) == pytest.approx((50, 50, 50))


def test_order_of_images_and_objects_does_not_matter():
    truth, detections = random_scene()
    detections = [{**found, "score": round(found["score"], 1)} for found in detections]
    turned = {**truth, "images": truth["images"][::-1], "annotations": truth["annotations"][::-1]}
    one, other = error_split(truth, detections), error_split(turned, detections)
    assert same(one, other)
    np.testing.assert_array_equal(one.kind_of_detection, other.kind_of_detection)
    np.testing.assert_array_equal(one.missed, np.sort(len(truth["annotations"]) - 1 - other.missed))


def test_without_detections_all_objects_are_missed():
    truth, _ = scene(OBJECTS, [])
    split = error_split(truth, [])
    assert split.counts == {**dict.fromkeys(KINDS, 0), "missed": len(OBJECTS)}
    assert (split.ap50, split.false_positive_gain) == (0, 0)
    assert split.missed.tolist() == list(range(len(OBJECTS)))
    assert split.kind_of_detection.shape == (0,)


def test_without_objects_there_are_errors_and_no_points():
    truth, detections = scene(OBJECTS, FOUND)
    split = error_split({**truth, "annotations": []}, detections)
    assert split.counts == {**dict.fromkeys(KINDS, 0), "background": len(FOUND)}
    assert all(math.isnan(value) for value in (split.ap50, *split.gain.values(), split.false_positive_gain))


def test_pictures_and_classes_can_be_chosen():
    truth, detections = random_scene()
    chosen = [image["id"] for image in truth["images"][:15]]
    part = {
        **truth,
        "images": truth["images"][:15],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in chosen and a["category_id"] != CAT],
    }
    inside = [f for f in detections if f["image_id"] in chosen and f["category_id"] != CAT]
    split = error_split(truth, detections, ("bee", "ant"), chosen)
    expected = error_split(part, inside, ("ant", "bee"))
    assert same(split, expected)
    kinds = iter(expected.kind_of_detection.tolist())
    assert split.kind_of_detection.tolist() == [next(kinds) if found in inside else NOT_COUNTED for found in detections]
    assert all(truth["annotations"][place] in part["annotations"] for place in split.missed)
    assert len(inside) < len(detections) / 2


def test_inconsistent_arguments_raise_errors():
    truth, detections = scene(OBJECTS, FOUND)
    with pytest.raises(UserError, match="no class 'dog'"):
        error_split(truth, detections, ("ant", "dog"))
    with pytest.raises(UserError, match="no image with the id 999"):
        error_split(truth, [*detections, {**detections[0], "image_id": 999}])
