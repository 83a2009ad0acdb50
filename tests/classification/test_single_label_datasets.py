"""Images with one label each: class folders, annotation files, torchvision's data sets."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from made_data import make_cars, make_cifar, make_flowers
from PIL import Image

from tresnet_downstream.classification import SingleLabelDataset, TorchvisionDataset
from tresnet_downstream.errors import UserError

PIPELINE = [{"type": "SquashResize", "size": 16}]


@pytest.fixture
def folder(tmp_path):
    """Two classes in folders, of 2 and 1 images, each of one colour."""
    for number, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png")):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (40 * number, 10, 200)).save(path)
    return tmp_path


def test_class_folders_give_class_indices(folder):
    data = SingleLabelDataset("train", PIPELINE, data_root=str(folder))
    assert data.classes == ("cat", "dog")
    samples = [data[index] for index in range(3)]
    assert [sample["targets"] for sample in samples] == [0, 0, 1]
    assert [sample["image"] for sample in samples] == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert samples[2]["inputs"].shape == (3, 16, 16)
    assert samples[2]["inputs"][:, 0, 0].tolist() == [80, 10, 200]
    assert data.annotation_file == data.image_folder == str(folder / "train")


def test_classes_of_training_number_those_of_validation(folder):
    data = SingleLabelDataset("train", PIPELINE, data_root=str(folder), classes=("dog", "cat"))
    assert [data[index]["targets"] for index in range(3)] == [0, 1, 1]
    with pytest.raises(UserError, match="not among the 1 classes, such as 'cat'"):
        SingleLabelDataset("train", PIPELINE, data_root=str(folder), classes=("dog",))


def test_tables_give_class_indices_and_refuse_other_numbers_of_labels(folder):
    table = folder / "labels.csv"
    table.write_text("path,label\ncat/1.png,tabby\ndog/1.png,pug\n")
    data = SingleLabelDataset("train", PIPELINE, "labels.csv", str(folder))
    assert data.classes == ("pug", "tabby")
    assert [data[index]["targets"] for index in range(2)] == [1, 0]
    table.write_text("cat/1.png,tabby;pug\ndog/1.png,pug\n")
    with pytest.raises(UserError, match=r"1 of 2 images do not have exactly one label, such as 'cat/1\.png'"):
        SingleLabelDataset("train", PIPELINE, "labels.csv", str(folder))
    table.write_text("cat/1.png,tabby,\ndog/1.png,,pug\n")
    with pytest.raises(UserError, match="do not have exactly one label"):
        SingleLabelDataset("train", PIPELINE, "labels.csv", str(folder))


def test_unreadable_image_is_skipped_with_the_target_of_the_next(folder):
    (folder / "train" / "cat" / "2.png").write_bytes(b"no picture")
    data = SingleLabelDataset("train", PIPELINE, data_root=str(folder), on_bad_image="skip")
    assert data[1]["targets"] == 1
    assert json.loads(data[1]["passed_over"]).keys() == {"cat/2.png"}


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder with CIFAR-10, of three images in each file, and its content."""
    return tmp_path, make_cifar(tmp_path, monkeypatch)


def test_cifar_is_read_as_torchvision_has_it(cifar):
    root, made = cifar
    data = TorchvisionDataset("CIFAR10", [], data_root=str(root))
    assert len(data) == 6
    assert data.classes[3] == "class 3"
    assert data.labels.tolist() == made["data_batch_1"][1] + made["data_batch_2"][1]
    sample = data[4]
    assert sample["targets"] == made["data_batch_2"][1][1]
    assert sample["image"] == "4"
    assert torch.equal(sample["inputs"], torch.from_numpy(made["data_batch_2"][0][1].reshape(3, 32, 32)))
    joined = TorchvisionDataset("CIFAR10", [], "train+test", str(root))
    assert len(joined) == 9
    assert torch.equal(joined[7]["inputs"].flatten(), torch.from_numpy(made["test_batch"][0][1]))


def test_draws_of_torchvisions_images_are_functions_of_epoch_and_index(cifar):
    crop = [{"type": "RandomCropAndResize", "size": 16}]
    data = TorchvisionDataset("CIFAR10", crop, data_root=str(cifar[0]), seed=1)
    assert torch.equal(data[(2, 3)]["inputs"], data[(2, 3)]["inputs"])
    assert not torch.equal(data[(2, 3)]["inputs"], data[(1, 3)]["inputs"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "CIFAR11"}, "no such data set"),
        ({"name": "VisionDataset", "split": "all"}, "is not a data set with one label per image"),
        ({"name": "CIFAR10", "split": "val"}, "has the splits train and test"),
        ({"name": "Flowers102", "split": "all"}, "cannot be read"),
        ({"name": "CIFAR10"}, "download=True fetches it"),
        ({"name": "StanfordCars"}, r"cannot be read there \([^;]*\)$"),
        ({"name": "CIFAR10", "options": {"size": 3}}, "takes no argument 'size'"),
        ({"name": "ImageFolder", "download": True}, "cannot download"),
        ({"name": "FakeData", "split": "all"}, "FakeData cannot be read"),
    ],
)
def test_wrong_arguments_are_reported(tmp_path, arguments, words):
    with pytest.raises(UserError, match=words):
        TorchvisionDataset(pipeline=PIPELINE, data_root=str(tmp_path / "none"), **arguments)


def test_data_set_without_splits_is_not_taken_for_training_and_scoring_both(tmp_path):
    for name in ("Forest", "River"):
        path = tmp_path / "eurosat/2750" / name / "1.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path)
    for split in ("train", "test"):
        with pytest.raises(UserError, match=f"split='{split}': torchvision does not split EuroSAT; 'all' uses"):
            TorchvisionDataset("EuroSAT", PIPELINE, split=split, data_root=str(tmp_path))
    assert len(TorchvisionDataset("EuroSAT", PIPELINE, split="all", data_root=str(tmp_path))) == 2


def test_one_process_at_a_time_downloads(tmp_path, monkeypatch):
    downloading, together = [], []

    class Downloaded:
        targets = (0, 1)

        def __init__(self, root, train=True, download=False):
            downloading.append(root)
            together.append(len(downloading))
            time.sleep(0.05)
            downloading.pop()

        def __len__(self):
            return 2

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Downloaded)

    def build(_):
        return TorchvisionDataset("CIFAR10", PIPELINE, data_root=str(tmp_path / "new"), download=True)

    with ThreadPoolExecutor(3) as pool:
        assert [len(data) for data in pool.map(build, range(3))] == [2, 2, 2]
    assert together == [1, 1, 1]


def test_unexpected_classes_are_refused(cifar):
    with pytest.raises(UserError, match="its 10 classes are not the 2 of `classes`"):
        TorchvisionDataset("CIFAR10", [], data_root=str(cifar[0]), classes=("a", "b"))


def test_flowers_and_cars_are_read_as_torchvision_has_them(tmp_path, monkeypatch):
    make_flowers(tmp_path, monkeypatch)
    data = TorchvisionDataset("Flowers102", PIPELINE, "train+val", str(tmp_path))
    assert data.labels.tolist() == [0, 1, 2, 0]
    assert len(data.classes) == 102
    assert data[3]["inputs"].shape == (3, 16, 16)
    assert (tmp_path / data[3]["image"]).is_file()  # where a report finds it
    assert len({data[place]["image"] for place in range(4)}) == 4
    make_cars(tmp_path)
    cars = TorchvisionDataset("StanfordCars", PIPELINE, "test", str(tmp_path))
    assert cars.labels.tolist() == [0, 1, 2]
    assert cars.classes == ("coupe", "van", "truck")
    assert cars[2]["image"] == "stanford_cars/cars_test/3.jpg"
