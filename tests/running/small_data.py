"""A data set of coloured shapes and a network of four blocks that trains in a second."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from mmengine.utils import ManagerMixin
from PIL import Image, ImageDraw

from tresnet_downstream.command_line import run

ROOT = Path(__file__).parents[2]
CLASSES = ("disc", "square", "stripe")
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 80, 230))
DIGITS, CUSTOM = (str(ROOT / "configs" / name) for name in ("digits_tresnet.py", "custom_tresnet_m_448.py"))
PATHS = {
    "train_annotations": "train.json",
    "train_images": "pictures",
    "val_annotations": "val.json",
    "val_images": "pictures",
}
SMALL_NETWORK = {
    "model.backbone.layers": "(1,1,1,1)",
    "model.backbone.width": "0.25",
    "model.head.num_classes": "3",
    "image_size": "32",
    "batch_size": "8",
    "num_workers": "0",
    "max_epochs": "2",
    "max_lr": "1e-3",
}

# A network with dropout and stochastic depth.
RANDOM_NETWORK = {
    "model__head__type": "MLDecoderHead",
    "model__head__embed_dim": 32,
    "model__head__num_heads": 4,
    "model__head__feedforward_dim": 64,
    "model__backbone__drop_path_rate": 0.3,
}


def make_small_data(folder, num_train=24, num_val=11):
    """Writes JPEG pictures of 48 to 64 pixels and the two COCO files; gives the folder."""
    (folder / "pictures").mkdir(parents=True)
    draw = np.random.RandomState(0)
    for split, count in (("train", num_train), ("val", num_val)):
        images, annotations = [], []
        for number in range(count):
            shown = [c for c in range(3) if draw.random_sample() < 0.5] or [number % 3]
            name = f"{split}_{number:02}.jpg"
            _picture(shown, draw).save(folder / "pictures" / name, quality=92)
            images.append({"id": number + 1, "file_name": name})
            annotations += [{"image_id": number + 1, "category_id": c + 1} for c in shown]
        categories = [{"id": c + 1, "name": name} for c, name in enumerate(CLASSES)]
        for number, annotation in enumerate(annotations):
            annotation["id"] = number + 1
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def with_test_split(data, folder):
    """A copy of the small data of whose validation images all but six are in ``test.json``; gives its folder."""
    shutil.copytree(data, folder)
    content = json.loads((folder / "val.json").read_text())
    for name, images in (("val", content["images"][:6]), ("test", content["images"][6:])):
        ids = {image["id"] for image in images}
        annotations = [each for each in content["annotations"] if each["image_id"] in ids]
        (folder / f"{name}.json").write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    return folder


def _picture(shown, draw):
    width, height = draw.randint(48, 65, 2).tolist()
    picture = Image.fromarray(draw.randint(90, 140, (height, width, 3)).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for c in shown:
        x, y = draw.randint(2, 28, 2).tolist()
        if c == 0:
            pen.ellipse((x, y, x + 18, y + 18), fill=COLOURS[c])
        elif c == 1:
            pen.rectangle((x, y, x + 16, y + 16), fill=COLOURS[c])
        else:
            pen.line((0, y, width, y + 6), fill=COLOURS[c], width=6)
    return picture


def with_bases(config):
    """The text of a config and of all files of ours that it inherits from."""
    text = config.read_text()
    return text + "".join(with_bases(config.parent / name) for name in re.findall(r"'([\w/]+\.py)'", text))


def options(data, **changes):
    """``--cfg-options`` of a small training on ``data``; dots of a key are written as two underscores."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    merged = {"data_root": data, **PATHS, **SMALL_NETWORK, **changes}
    return ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in merged.items())]


def tool(name):
    """The ``main`` of a script in tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def forget_mmengine():
    """Drops the instances that MMEngine finds by name: two runs of the same second share them otherwise."""

    def families(base):
        return {base}.union(*(families(child) for child in base.__subclasses__()))

    for family in families(ManagerMixin):
        getattr(family, "_instance_dict", {}).clear()


def call(name, arguments):
    """Calls a tool in this process; gives exit status, standard output and standard error."""
    forget_mmengine()
    out, err = io.StringIO(), io.StringIO()
    # MMEngine lays out the config's text for each checkpoint: most of the time that so short a run takes.
    as_it_is = mock.patch("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
    with as_it_is, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(tool(name), [str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def train(data, work_dir, *flags, config=DIGITS, **changes):
    """Trains in this process, which must end well; gives what was printed."""
    status, out, err = call("train_multilabel", [config, "--work-dir", work_dir, *flags, *options(data, **changes)])
    assert (status, err) == (0, ""), err
    return out


def refused(name, arguments, *words):
    """The tool must end with status 2 and one line that has all the words."""
    status, out, err = call(name, arguments)
    assert status == 2, out + err
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    for word in words:
        assert str(word) in err, err
    return err


def refuses_to_train(data, work_dir, *words, flags=(), config=DIGITS, **changes):
    arguments = [config, "--work-dir", work_dir, *flags, *options(data, **changes)]
    return refused("train_multilabel", arguments, *words)


def start(arguments, command=(), **popen):
    """Starts ``COMMAND python ARGUMENTS`` as a process of its own."""
    python_path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONFAULTHANDLER"] = "1"  # an abort in torch says where it was
    return subprocess.Popen(
        [*command, sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **popen,
    )
