"""Matches and resampled AP, compared with direct calls of pycocotools."""

import contextlib
import io

import numpy as np
import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.detection_matches import average_precisions, bootstrap_ap, match_detections

pytest.importorskip("pycocotools", reason="needs the detection set-up")
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("ant", "bee", "cat", "never")
IDS = (7, 3, 90, 12)  # neither consecutive nor in the order of the names


def made(num_images=40, seed=0, decimals=16):
    """Boxes, a tenth of them crowds, and detections near, beside and without them; scores of so many decimals."""
    draw = np.random.RandomState(seed)
    images, annotations, detections = [], [], []

    def detect(image, category, box):
        score = round(float(draw.random_sample()), decimals)
        detections.append({"image_id": image, "category_id": category, "bbox": box, "score": score})

    for image in range(10, 10 * num_images + 1, 10):
        images.append({"id": image, "file_name": f"{image}.jpg", "width": 400, "height": 300})
        for _ in range(draw.randint(0, 6)):
            box = [*draw.uniform(0, 250, 2).tolist(), *np.exp(draw.uniform(2, 5, 2)).tolist()]
            category, crowd = IDS[draw.randint(3)], int(draw.random_sample() < 0.1)
            thing = {"id": len(annotations), "image_id": image, "category_id": category, "bbox": box}
            annotations.append({**thing, "area": box[2] * box[3], "iscrowd": crowd})
            for _ in range(draw.randint(0, 4)):
                near = (np.array(box) + draw.normal(0, 0.08, 4) * np.array([box[2], box[3]] * 2)).tolist()
                detect(image, IDS[draw.randint(3)] if draw.random_sample() < 0.15 else category, near)
        detect(image, IDS[draw.randint(3)], [5.0, 5.0, 40.0, 40.0])
    categories = [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def pycocotools_ap(truth, detections, iou_type="bbox"):
    """AP in percent, (T, C) in the order of IDS, NaN where pycocotools has none."""
    numbered = [{**annotation, "id": place} for place, annotation in enumerate(truth["annotations"], start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = {**truth, "annotations": numbered}
        index.createIndex()
        run = COCOeval(index, index.loadRes([dict(found) for found in detections]), iou_type)
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, [run.params.catIds.index(number) for number in IDS], 0, -1]
    return np.where((precision > -1).all(1), 100 * precision.mean(1), np.nan)


def repeated(truth, detections, weights):
    """The files of a resample: picture k of the list stands in them weights[k] times, under ids of its own."""
    times = dict(zip(sorted(image["id"] for image in truth["images"]), weights, strict=True))

    def copies(things, key):
        return [{**t, key: 1000 * t[key] + copy} for t in things for copy in range(times[t[key]])]

    files = {"images": copies(truth["images"], "id"), "annotations": copies(truth["annotations"], "image_id")}
    return {**truth, **files}, copies(detections, "image_id")


@pytest.mark.parametrize("decimals", [16, 1], ids=["scores apart", "equal scores"])
def test_ap_of_every_class_and_iou_is_that_of_pycocotools(decimals):
    truth, detections = made(decimals=decimals)
    ap = average_precisions(match_detections(truth, detections, NAMES))
    expected = pycocotools_ap(truth, detections)
    assert ap.shape == (10, 4)
    np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-12)
    assert np.isnan(ap[:, 3]).all()
    assert 20 < ap[0, :3].mean() < 90


def test_ap_of_masks_is_that_of_pycocotools():
    truth, detections = made(20, seed=1)
    for thing in (*truth["annotations"], *detections):
        left, top, width, height = thing["bbox"]
        corners = [[left, top, left + width, top, left + width, top + height]]  # a triangle: half of the box
        thing["segmentation"] = mask_tools.frPyObjects(corners, 300, 400)[0]
        thing["segmentation"]["counts"] = thing["segmentation"]["counts"].decode()
    ap = average_precisions(match_detections(truth, detections, NAMES, iou_type="segm"))
    without_boxes = [{key: value for key, value in found.items() if key != "bbox"} for found in detections]
    np.testing.assert_allclose(ap, pycocotools_ap(truth, without_boxes, "segm"), rtol=0, atol=1e-12)
    assert not np.allclose(ap[:, :3], pycocotools_ap(truth, detections)[:, :3])


def test_a_weight_equals_copies_of_the_image():
    truth, detections = made()
    matches = match_detections(truth, detections, NAMES)
    for weights in np.random.RandomState(2).multinomial(40, np.full(40, 1 / 40), size=5):
        expected = pycocotools_ap(*repeated(truth, detections, weights))
        np.testing.assert_allclose(average_precisions(matches, weights), expected, rtol=0, atol=1e-12)


def test_bootstrap_is_ap_of_each_resample_to_the_last_bit(monkeypatch):
    truth, detections = made(decimals=1)
    matches = match_detections(truth, detections, NAMES)
    draw = np.random.RandomState(3)
    blocks = [draw.multinomial(40, np.full(40, 1 / 40), size=size) for size in (7, 1, 12)]
    blocks[0][0] = 0  # nothing at all
    expected = np.stack([average_precisions(matches, row) for row in np.concatenate(blocks)])
    ap = bootstrap_ap(matches, iter(blocks))
    assert (ap.dtype, ap.shape) == (np.float32, (20, 10, 4))
    assert np.isnan(ap[0]).all()
    assert len(np.unique(ap[1:, 0, 0])) == 19
    np.testing.assert_array_equal(ap, expected.astype(np.float32))
    # Nor does it depend on how many resamples are worked on at once.
    monkeypatch.setattr("tresnet_downstream.evaluation.detection_matches._BLOCK_ENTRIES", 1)
    np.testing.assert_array_equal(bootstrap_ap(matches, blocks), ap)
    assert bootstrap_ap(matches, []).shape == (0, 10, 4)


def test_detections_are_ranked_by_score_then_picture_then_as_listed():
    truth, _ = made(3)
    places = [(30, 0.5), (10, 0.5), (20, 0.9), (10, 0.5), (30, 0.1), (20, 0.5)]
    box = [0.0, 0.0, 9.0, 9.0]
    detections = [{"image_id": image, "category_id": 7, "bbox": box, "score": score} for image, score in places]
    ants = match_detections(truth, detections, ["ant"]).of_class[0]
    assert ants.row.tolist() == [2, 1, 3, 5, 0, 4]
    assert ants.image.tolist() == [1, 0, 0, 1, 2, 2]
    assert ants.score.tolist() == [0.9, 0.5, 0.5, 0.5, 0.5, 0.1]


def test_crowds_are_no_objects_and_what_lies_on_them_is_ignored():
    truth, _ = made(2)
    crowd = {"id": 1, "image_id": 10, "category_id": 7, "bbox": [0, 0, 200, 100], "area": 20000, "iscrowd": 1}
    single = {"id": 2, "image_id": 10, "category_id": 7, "bbox": [300, 0, 50, 50], "area": 2500, "iscrowd": 0}
    truth["annotations"] = [crowd, single]
    boxes = [[10, 10, 30, 30], [80, 10, 30, 30], [300, 0, 50, 40], [300, 0, 50, 50], [300, 200, 9, 9]]
    detections = [
        {"image_id": 10, "category_id": 7, "bbox": box, "score": 0.9 - 0.1 * n} for n, box in enumerate(boxes)
    ]
    matches = match_detections(truth, detections, ["ant"])
    ants = matches.of_class[0]
    assert ants.objects.tolist() == [1, 0]
    assert ants.ignored.tolist() == [[True, True, False, False, False]] * 10
    iou = np.linspace(0.5, 0.95, 10)
    np.testing.assert_array_equal(matches.iou_thresholds, iou)
    assert ants.matched[:, 2].tolist() == (iou <= 0.8).tolist()  # 40 of 50 rows
    assert ants.matched[:, 3].tolist() == (iou > 0.8).tolist()
    assert not ants.matched[:, [0, 1, 4]].any()


def test_without_detections_the_score_is_0():
    truth, _ = made()
    matches = match_detections(truth, [], NAMES)
    assert all(one.matched.shape == one.ignored.shape == (10, 0) for one in matches.of_class)
    counted = [a["category_id"] for a in truth["annotations"] if not a["iscrowd"]]
    assert [one.objects.sum() for one in matches.of_class] == [counted.count(number) for number in IDS]
    np.testing.assert_array_equal(average_precisions(matches), np.array([[0, 0, 0, np.nan]] * 10))


def test_images_and_classes_can_be_chosen_and_their_order_does_not_matter():
    truth, detections = made()
    chosen = [image["id"] for image in truth["images"][:15]]
    part, found = repeated(truth, detections, [1] * 15 + [0] * 25)
    ap = average_precisions(match_detections(truth, detections, ("cat", "ant"), chosen[::-1]))
    np.testing.assert_allclose(ap, pycocotools_ap(part, found)[:, [2, 0]], rtol=0, atol=1e-12)

    whole = match_detections(truth, detections)
    assert whole.classes == ("bee", "ant", "never", "cat")  # by id
    turned = match_detections({**truth, "images": truth["images"][::-1]}, detections)
    np.testing.assert_array_equal(turned.image_ids, whole.image_ids)
    for one, other in zip(whole.of_class, turned.of_class, strict=True):
        np.testing.assert_array_equal(one.row, other.row)
        np.testing.assert_array_equal(one.matched, other.matched)


def test_inconsistent_arguments_raise_errors():
    truth, detections = made(3)
    with pytest.raises(UserError, match="no class 'dog'"):
        match_detections(truth, detections, ("ant", "dog"))
    with pytest.raises(UserError, match="no image with the id 999"):
        match_detections(truth, [*detections, {**detections[0], "image_id": 999}])
    matches = match_detections(truth, detections)
    with pytest.raises(ValueError, match="each of 3 images"):
        average_precisions(matches, np.ones(4, int))
    with pytest.raises(ValueError, match="each of 3 images"):
        bootstrap_ap(matches, [np.ones(3, int)])
    with pytest.raises(ValueError, match="from 0 up, got -1"):
        average_precisions(matches, np.array([1, -1, 2]))
