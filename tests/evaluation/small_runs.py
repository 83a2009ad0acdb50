"""Small run folders for tests, with images to show."""

import numpy as np
from evaluation.test_detection_scores import NAMES, made
from PIL import Image

from tresnet_downstream.evaluation import DetectionRun, MultilabelRun, write_detection_run, write_multilabel_run

# Names that markup, plots or spreadsheets take for their own.
ODD_NAMES = (
    "<script>document.title='run'</script>",
    "a \"quoted\" & 'single' name",
    "كلب صغير",
    "自転車に乗る人",
    "cash $x_1$ | pipe",
    "_leading",
    "=1+1",
    "*bold* [link](x) `code`",
)
ABOUT = {
    "model": {"type": "ImageClassifier", "backbone": {"type": "TResNet"}, "head": {"type": "LinearHead"}},
    "checkpoint": "work/best.pth",
    "date": "2026-11-21T12:00:00+00:00",
    "versions": {"torch": "2.14.1"},
    "command": "python tools/test_multilabel.py",
}


def multilabel_run(folder, num_images=120, classes=ODD_NAMES, seed=0, gain=0.0, **changes):
    """Writes a run on the same images and targets for every seed; ``gain`` makes the network better."""
    draw = np.random.default_rng(7)
    targets = (draw.random((num_images, len(classes))) < np.linspace(0.05, 0.4, len(classes))).astype(np.int8)
    targets[0] = 1
    noise = draw.normal(-1.5, 1.2, targets.shape) + np.random.default_rng(seed).normal(0, 0.6, targets.shape)
    probabilities = (1 / (1 + np.exp(-(noise + (2.2 + gain) * targets)))).astype(np.float32)
    images = [f"{number:03}.jpg" for number in range(num_images)]
    pictures = folder.parent / "pictures"
    if not pictures.exists():
        pictures.mkdir(parents=True)
        for name in images[: num_images // 2]:
            Image.fromarray(draw.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((80, 60)).save(pictures / name)
    given = {
        "probabilities": probabilities,
        "targets": targets,
        "images": images,
        "classes": tuple(classes),
        "image_folder": str(pictures),
        "threshold": 0.5,
        "top_k": 3,
        "about": ABOUT,
    }
    run = MultilabelRun(**{**given, **changes})
    write_multilabel_run(run, folder)
    return run


def detection_run(folder, seed=0, masks=False, **changes):
    """Writes a run of boxes of every size; other seeds find the same objects otherwise."""
    truth, detections = made(seed=0)
    draw = np.random.default_rng(seed)
    found = [{**box, "score": float(np.clip(box["score"] + draw.normal(0, 0.1 * seed), 0, 1))} for box in detections]
    given = {
        "ground_truth": truth,
        "predictions": {"bbox": found},
        "image_ids": [image["id"] for image in truth["images"]],
        "classes": NAMES,
        "image_folder": str(folder.parent / "pictures"),
        "backend": "pycocotools",
        "about": {"config": "configs/x.py"},
    }
    run = DetectionRun(**{**given, **changes})
    write_detection_run(run, folder)
    return run


def joint_run(folder, seed=0):
    """Writes the two runs of a network that gives labels and boxes."""
    multilabel_run(folder / "labels", classes=NAMES, seed=seed, about={"config": "configs/x.py"})
    detection_run(folder / "boxes", seed=seed)
