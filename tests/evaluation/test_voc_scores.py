"""VOC's average precision, compared with MMDetection's implementation and with values by hand."""

import numpy as np
import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.voc_scores import voc_scores


def random_content(draw, num_images=40, num_classes=4):
    annotations, predictions = [], []
    for image in range(num_images):
        for _ in range(draw.integers(0, 6)):
            box = [*draw.integers(0, 60, 2), *draw.integers(5, 40, 2)]
            category, difficult = int(draw.integers(num_classes)), int(draw.random() < 0.25)
            record = {"image_id": image, "category_id": category}
            annotations.append({**record, "bbox": [float(v) for v in box], "difficult": difficult})
            for _ in range(draw.integers(0, 4)):
                moved = np.maximum(np.array(box) + draw.normal(0, 3, 4), [0, 0, 2, 2])
                predictions.append({**record, "bbox": moved.tolist(), "score": float(draw.random())})
        wrong = {"image_id": image, "category_id": int(draw.integers(num_classes)), "bbox": [1.0, 2.0, 30.0, 20.0]}
        predictions.append({**wrong, "score": float(draw.random())})
    categories = [{"id": number, "name": f"class {number}"} for number in range(num_classes)]
    return {"annotations": annotations, "categories": categories}, predictions


def of_mmdetection(content, predictions, rules):
    functional = pytest.importorskip("mmdet.evaluation.functional", reason="needs the extra detection")
    images = range(1 + max(each["image_id"] for each in predictions))
    labels = range(len(content["categories"]))

    def corners(records, *keys):
        rows = [
            [*r["bbox"][:2], r["bbox"][0] + r["bbox"][2], r["bbox"][1] + r["bbox"][3], *(r[k] for k in keys)]
            for r in records
        ]
        return np.array(rows, np.float64).reshape(-1, 4 + len(keys))

    detections, truths = [], []
    for image in images:
        own = [each for each in content["annotations"] if each["image_id"] == image]
        found = [each for each in predictions if each["image_id"] == image]
        detections.append([corners([f for f in found if f["category_id"] == c], "score") for c in labels])
        easy, hard = ([each for each in own if each["difficult"] == flag] for flag in (0, 1))
        truths.append(
            {
                "bboxes": corners(easy),
                "labels": np.array([each["category_id"] for each in easy], int),
                "bboxes_ignore": corners(hard),
                "labels_ignore": np.array([each["category_id"] for each in hard], int),
            }
        )
    mode = "11points" if rules == "2007" else "area"
    mean, each = functional.eval_map(detections, truths, iou_thr=0.5, logger="silent", eval_mode=mode)
    return 100 * mean, [100 * float(np.ravel(entry["ap"])[0]) for entry in each]


@pytest.mark.parametrize("rules", ["2007", "2010"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_mmdetections(rules, seed):
    content, predictions = random_content(np.random.default_rng(seed))
    ours = voc_scores(content, predictions, rules)
    mean, each = of_mmdetection(content, predictions, rules)
    assert ours.mAP == pytest.approx(mean, abs=1e-4)
    assert ours.per_class == pytest.approx(each, abs=1e-4)


def test_second_prediction_of_an_object_is_a_mistake_and_one_of_a_difficult_object_is_nothing():
    box, other = [0, 0, 10, 10], [50, 50, 10, 10]
    content = {
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 3, "bbox": box},
            {"image_id": 1, "category_id": 3, "bbox": other, "difficult": 1},
            {"image_id": 2, "category_id": 3, "bbox": box},
        ],
    }
    rows = [(1, other, 0.9), (1, box, 0.8), (1, box, 0.7), (2, box, 0.6)]
    predictions = [{"image_id": i, "category_id": 3, "bbox": b, "score": s} for i, b, s in rows]
    # Precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1.
    assert voc_scores(content, predictions, "2010").mAP == pytest.approx(100 * (1 / 2 + 2 / 3 / 2))
    assert voc_scores(content, predictions, "2007").mAP == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_class_without_objects_has_no_score_and_rules_are_known():
    content = {"categories": [{"id": 1, "name": "cat"}], "annotations": []}
    assert np.isnan(voc_scores(content, []).mAP)
    with pytest.raises(UserError, match="choose 2007"):
        voc_scores(content, [], "2008")
