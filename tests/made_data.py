"""Small data sets in the layouts of the published data sets."""

import pickle
from hashlib import md5

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as torchvision_datasets

CIFAR = {
    "CIFAR10": ("cifar-10-batches-py", {"train_list": ["data_batch_1", "data_batch_2"], "test_list": ["test_batch"]}),
    "CIFAR100": ("cifar-100-python", {"train_list": ["train"], "test_list": ["test"]}),
}


def make_cifar(root, monkeypatch, name="CIFAR10", count=3):
    """CIFAR-10 or CIFAR-100 in its own format; gives the pixels of each file, and its labels."""
    folder, lists = CIFAR[name]
    base, kind = root / folder, getattr(torchvision_datasets, name)
    base.mkdir(parents=True)
    draw = np.random.default_rng(0)
    made = {}

    def write(file, content):
        (base / file).write_bytes(pickle.dumps(content))
        return [file, md5((base / file).read_bytes()).hexdigest()]

    number_key, names_key = ("labels", "label_names") if name == "CIFAR10" else ("fine_labels", "fine_label_names")
    for attribute, files in lists.items():
        entries = []
        for file in files:
            labels = [(3 * place + len(file)) % 10 for place in range(count)]
            made[file] = draw.integers(0, 256, (count, 3072), dtype=np.uint8), labels
            entries.append(write(file, {"data": made[file][0], number_key: labels}))
        monkeypatch.setattr(kind, attribute, entries)
    names = [f"class {number}" for number in range(10 if name == "CIFAR10" else 100)]
    file = kind.meta["filename"]
    monkeypatch.setattr(kind, "meta", {"filename": file, "key": names_key, "md5": write(file, {names_key: names})[1]})
    return made


def make_flowers(root, monkeypatch):
    """Oxford Flowers-102 in its own layout, with 6 images."""
    io = pytest.importorskip("scipy.io", reason="torchvision reads this data set with scipy")
    base = root / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    _pictures([base / "jpg" / f"image_{number:05}.jpg" for number in range(1, 7)])
    io.savemat(base / "imagelabels.mat", {"labels": [1, 2, 3, 1, 2, 3]})
    io.savemat(base / "setid.mat", {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]})
    monkeypatch.setattr(torchvision_datasets.Flowers102, "_check_integrity", lambda self: self._images_folder.is_dir())


def make_cars(root):
    """Stanford Cars as torchvision reads a local copy, with 3 images in each split."""
    io = pytest.importorskip("scipy.io", reason="torchvision reads this data set with scipy")
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    kind = [("fname", "O"), ("class", "O")]
    rows = np.array([(f"{number}.jpg", number) for number in (1, 2, 3)], dtype=kind)
    for split in ("train", "test"):
        (base / f"cars_{split}").mkdir()
        _pictures([base / f"cars_{split}" / f"{number}.jpg" for number in (1, 2, 3)])
    io.savemat(base / "devkit" / "cars_train_annos.mat", {"annotations": rows})
    io.savemat(base / "cars_test_annos_withlabels.mat", {"annotations": rows})
    io.savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["coupe", "van", "truck"], dtype=object)})


def make_voc(root, count=6):
    """PASCAL VOC 2007's layout with one object, dog or cat, in each image."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    names = [f"{number:06}" for number in range(1, count + 1)]
    _pictures([root / "JPEGImages" / f"{name}.jpg" for name in names])
    for number, name in enumerate(names):
        sides = {"xmin": 5, "ymin": 6, "xmax": 30, "ymax": 28}
        corners = "".join(f"<{key}>{value}</{key}>" for key, value in sides.items())
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>56</width><height>48</height></size>"
            f"<object><name>{('cat', 'dog')[number % 2]}</name><bndbox>{corners}</bndbox></object></annotation>"
        )
    for split in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))


def _pictures(paths):
    draw = np.random.default_rng(1)
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (48, 56, 3), dtype=np.uint8)).save(path)
