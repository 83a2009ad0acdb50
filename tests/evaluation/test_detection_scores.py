"""Detection scores, compared with direct calls of pycocotools."""

import contextlib
import csv
import io
import json
import math

import numpy as np
import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import detection_scores, format_detection_table, write_detection_scores
from tresnet_downstream.evaluation.coco_index import BACKENDS

pytest.importorskip("pycocotools", reason="needs the detection set-up")
pytest.importorskip("faster_coco_eval", reason="needs the extra faster-coco-eval")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("ant", "bee", "cat", "never")
IDS = (7, 3, 90, 12)  # neither consecutive nor in the order of the names


def made(num_images=40, seed=0):
    """Ground truth with boxes of every size and some crowds, and detections near, beside and without them."""
    draw = np.random.RandomState(seed)
    images, annotations, detections = [], [], []
    for image in range(1, num_images + 1):
        images.append({"id": 10 * image, "file_name": f"{image}.jpg", "width": 400, "height": 300})
        for _ in range(draw.randint(0, 6)):
            side = np.exp(draw.uniform(2, 5, 2))
            x, y = draw.uniform(0, 250, 2)
            box = [float(x), float(y), float(side[0]), float(side[1])]
            category = IDS[draw.randint(3)]
            crowd = int(draw.random_sample() < 0.1)
            number = len(annotations)  # from 0, which pycocotools mistakes for no match
            annotations.append(
                {
                    "id": number,
                    "image_id": 10 * image,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                }
            )
            if draw.random_sample() < 0.7:
                near = (np.array(box) + draw.normal(0, 0.06, 4) * np.array([box[2], box[3]] * 2)).tolist()
                wrong = IDS[draw.randint(3)] if draw.random_sample() < 0.15 else category
                found = {"image_id": 10 * image, "category_id": wrong, "bbox": near}
                detections.append({**found, "score": float(draw.random_sample())})
        found = {"image_id": 10 * image, "category_id": IDS[draw.randint(3)], "bbox": [5.0, 5.0, 40.0, 40.0]}
        detections.append({**found, "score": float(0.5 * draw.random_sample())})
    categories = [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def pycocotools_of(truth, detections):
    """What pycocotools gives for annotations with ids from 1."""
    numbered = [{**annotation, "id": annotation["id"] + 1} for annotation in truth["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = {**truth, "annotations": numbered}
        index.createIndex()
        run = COCOeval(index, index.loadRes([dict(found) for found in detections]), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.mark.parametrize("backend", BACKENDS)
def test_headline_and_classes_are_those_of_pycocotools(backend):
    truth, detections = made()
    scores = detection_scores(truth, detections, NAMES, backend=backend)
    run = pycocotools_of(truth, detections)
    assert list(scores.headline.values()) == pytest.approx((100 * run.stats).tolist(), abs=1e-10)
    assert 20 < scores.headline["AP"] < 90
    for place, number in enumerate(IDS):
        precision = run.eval["precision"][:, :, run.params.catIds.index(number), 0, -1]
        recall = run.eval["recall"][:, run.params.catIds.index(number), 0, -1]
        if number == 12:
            assert math.isnan(scores.ap[place])
            assert math.isnan(scores.ar[place])
        else:
            assert scores.ap[place] == pytest.approx(100 * precision.mean(), abs=1e-10)
            assert scores.ap50[place] == pytest.approx(100 * precision[0].mean(), abs=1e-10)
            assert scores.ap75[place] == pytest.approx(100 * precision[5].mean(), abs=1e-10)
            assert scores.ar[place] == pytest.approx(100 * recall.mean(), abs=1e-10)
    counted = [a["category_id"] for a in truth["annotations"] if not a["iscrowd"]]
    assert scores.support.tolist() == [counted.count(number) for number in IDS]
    assert (scores.num_images, scores.num_detections) == (40, len(detections))


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_detections_the_score_is_0(backend):
    truth, _ = made()
    scores = detection_scores(truth, [], backend=backend)
    assert scores.headline["AP"] == scores.headline["AR_100"] == 0
    assert scores.classes == ("bee", "ant", "never", "cat")  # by id


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_objects_there_is_no_score(backend):
    truth, detections = made()
    scores = detection_scores({**truth, "annotations": []}, detections, backend=backend)
    assert all(math.isnan(value) for value in scores.headline.values())


def test_pictures_and_classes_can_be_chosen():
    truth, detections = made()
    chosen = [image["id"] for image in truth["images"][:15]]
    part = {
        "images": truth["images"][:15],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in chosen and a["category_id"] != 90],
        "categories": truth["categories"],
    }
    inside = [found for found in detections if found["image_id"] in chosen and found["category_id"] != 90]
    scores = detection_scores(truth, detections, ("ant", "bee"), chosen)
    assert scores.headline == pytest.approx(detection_scores(part, inside, ("ant", "bee")).headline, nan_ok=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_are_scored_by_their_own_overlap(backend):
    from pycocotools import mask as mask_tools

    truth, _ = made(8)
    detections = []
    for annotation in truth["annotations"]:
        left, top, width, height = annotation["bbox"]
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        annotation["segmentation"] = [corners]
        mask = mask_tools.frPyObjects([corners], 300, 400)[0]
        mask["counts"] = mask["counts"].decode()
        found = {"image_id": annotation["image_id"], "category_id": annotation["category_id"], "score": 0.9}
        detections.append({**found, "segmentation": mask, "bbox": [0.0, 0.0, 1.0, 1.0]})
        annotation["iscrowd"] = 0
    # Equal scores and equal masks: what is drawn is found, however the boxes beside them lie.
    assert detection_scores(truth, detections, iou_type="segm", backend=backend).headline["AP50"] > 99
    assert detection_scores(truth, detections, iou_type="bbox", backend=backend).headline["AP50"] < 1


def test_inconsistent_arguments_raise_errors():
    truth, detections = made(3)
    with pytest.raises(UserError, match="coco_eval='other' is unknown"):
        detection_scores(truth, detections, backend="other")
    with pytest.raises(UserError, match="no class 'dog'"):
        detection_scores(truth, detections, ("ant", "dog"))
    with pytest.raises(UserError, match="no image with the id 999"):
        detection_scores(truth, [*detections, {**detections[0], "image_id": 999}])


def test_files_hold_every_number(tmp_path):
    truth, detections = made()
    scores = detection_scores(truth, detections, NAMES)
    paths = write_detection_scores({"bbox": scores}, tmp_path / "run", {"config": "c.py"})
    assert [path.name for path in paths] == ["scores.json", "per_class.csv"]
    content = json.loads(paths[0].read_text())
    assert content["format"] == "tresnet_downstream.detection_scores"
    assert content["bbox"]["headline"]["AP"] == scores.headline["AP"]
    assert content["bbox"]["per_class"][3] == {
        "iou_type": "bbox",
        "class": "never",
        "ap": None,
        "ap50": None,
        "ap75": None,
        "ar100": None,
        "support": 0,
    }
    with paths[1].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    assert float(rows[0]["ap50"]) == scores.ap50[0]


def test_table_has_the_twelve_numbers_and_the_worst_class_first():
    truth, detections = made()
    scores = detection_scores(truth, detections, NAMES)
    lines = format_detection_table(scores, "the run").splitlines()
    assert lines[0] == "the run"
    assert lines[2].startswith(f"AP {scores.headline['AP']:.2f}  images 40  classes 4")
    assert any(line.startswith("AP50") and line.endswith(f"{scores.headline['AP50']:.2f}") for line in lines)
    order = [NAMES[c] for c in np.argsort(scores.ap[:3])]
    assert [line.split()[0] for line in lines[-3:]] == order
