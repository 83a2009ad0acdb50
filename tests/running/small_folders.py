"""Class folders of coloured images, and a training on them that takes a second."""

import numpy as np
from PIL import Image
from running.small_data import call

COLOURS = ("blue", "green", "red")
FOLDERS = "configs/folders_tresnet_m_224.py"
SMALL = {
    "model.backbone.layers": "(1,1,1,1)",
    "model.backbone.width": "0.25",
    "image_size": "32",
    "batch_size": "8",
    "num_workers": "0",
    "max_epochs": "2",
}


def make_class_folders(folder, per_class=(8, 5)):
    """Writes ``train`` and ``val`` with a folder of pictures for each class; gives the folder."""
    draw = np.random.default_rng(0)
    for split, count in zip(("train", "val"), per_class, strict=True):
        for channel, name in enumerate(reversed(COLOURS)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 80, (48, 56, 3))
                pixels[:, :, channel] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{number}.jpg")
    return folder


def options(data, **changes):
    """``--cfg-options`` of a small training; dots of a key are written as two underscores."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    merged = {"data_root": data, **SMALL, **changes}
    return ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in merged.items())]


def train(data, work_dir, *flags, config=FOLDERS, **changes):
    """Trains in this process, which must end well; gives what was printed."""
    status, out, err = call("train_classifier", [config, "--work-dir", work_dir, *flags, *options(data, **changes)])
    assert (status, err) == (0, ""), err
    return out
