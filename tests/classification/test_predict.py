"""Probabilities of images, with the preprocessing of the weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from running.small_data import call
from torchvision.transforms import v2

from tresnet_downstream import load_model, predict
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.errors import UserError
from tresnet_downstream.images import find_images
from tresnet_downstream.prediction.labels import labels_of
from tresnet_downstream.prediction.preparation import preparation_of
from tresnet_downstream.prediction.resizing import resize_and_crop
from tresnet_downstream.weights.formats import to_release

SMALL = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}


@pytest.fixture
def weights(tmp_path):
    """A file of the ASL release's form with three named classes."""
    model = ImageClassifier(SMALL, {"type": "LinearHead", "num_classes": 3})
    names = {0: "cat", 1: "dog", 2: "'bird'"}
    path = tmp_path / "small.pth"
    torch.save({"model": to_release(model.state_dict()), "num_classes": 3, "idx_to_class": names}, path)
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    draw = np.random.RandomState(0)
    for name in ("a.jpg", "b.png", "deeper/a.jpg"):
        Image.fromarray(draw.randint(0, 255, (50, 70, 3), np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (333, 333), (225, 1001), (100, 80)])
def test_resize_and_crop_is_within_1_of_torchvisions_pixels(shape):
    image = np.random.RandomState(0).randint(0, 255, (*shape, 3), np.uint8)
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(Image.fromarray(image))
    assert np.abs(resize_and_crop(image, 224, 0.875).astype(int) - np.asarray(theirs)).max() <= 1


def test_predict_is_the_network_on_prepared_pixels(weights, pictures):
    model = load_model(weights, input_size=64)
    found = predict(model, [pictures / "a.jpg", Image.open(pictures / "b.png")], batch_size=1)
    resized = [Image.open(pictures / name).resize((64, 64), Image.Resampling.BILINEAR) for name in ("a.jpg", "b.png")]
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        wanted = torch.sigmoid(model(batch)).numpy()
    assert np.allclose(found, wanted, atol=1e-6)
    assert predict(model, pictures / "a.jpg").shape == (1, 3)


def test_single_label_probabilities_sum_to_one(weights, pictures):
    model = load_model(weights, multi_label=False, input_size=64)
    assert predict(model, pictures / "a.jpg").sum() == pytest.approx(1, abs=1e-5)


def test_labels_are_cut_by_threshold_and_number():
    p, classes = np.array([0.2, 0.9, 0.6]), ("a", "b", "c")
    assert labels_of(p, classes, 0.5, None) == [("b", 0.9), ("c", 0.6)]
    assert labels_of(p, classes, None, 1) == [("b", 0.9)]
    assert labels_of(p, classes, 0.95, 2) == []


def test_tool_prints_json_lines_and_draws(weights, pictures, tmp_path):
    out = tmp_path / "drawn"
    arguments = [weights, pictures, "--size", 64, "--json", "--top-k", 2, "--out", out]
    status, printed, err = call("predict", arguments)
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [len(row["labels"]) for row in rows] == [2, 2, 2]
    assert {label["label"] for row in rows for label in row["labels"]} <= {"cat", "dog", "bird"}
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "a_2.jpg", "b.jpg"]
    with Image.open(out / "a.jpg") as image:
        assert image.height > 50


def test_bad_images_are_skipped_and_reported_at_the_end(weights, pictures):
    (pictures / "a.jpg").write_text("no picture")
    status, printed, err = call("predict", [weights, pictures, "--size", 64])
    assert status == 2
    assert len(printed.splitlines()) == 2
    assert err.count("\n") == 1
    assert "a.jpg: unreadable image" in err
    assert "1 of 3 images" in err


def test_huge_image_is_one_line(weights, tmp_path):
    (tmp_path / "huge.ppm").write_bytes(b"P6 50000 50000 255\n")
    status, printed, err = call("predict", [weights, tmp_path / "huge.ppm"])
    assert (status, printed) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "huge.ppm" in err


@pytest.mark.parametrize("option", [("--threshold", "2"), ("--top-k", "0"), ("--batch-size", "0"), ("--size", "30")])
def test_options_out_of_range_are_one_line(weights, pictures, option):
    status, _, err = call("predict", [weights, pictures, *option])
    assert status == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", [("--size", "64"), ("--weights", "raw")])
def test_options_of_weight_files_are_refused_by_name_for_exported_models(pictures, tmp_path, option):
    (tmp_path / "a.onnx").touch()
    status, _, err = call("predict", [tmp_path / "a.onnx", pictures, *option])
    assert status == 2
    assert f"a.onnx: {option[0]} is for weight files" in err


def test_weights_tool_lists_shows_and_converts(weights, tmp_path):
    status, printed, err = call("weights", ["list"])
    assert (status, err) == (0, "")
    assert "l_coco_asl_448" in printed
    assert "86.6" in printed
    status, printed, _ = call("weights", ["show", weights])
    assert status == 0
    assert "3: cat, dog, bird" in printed
    for to, out in (("timm", "t.safetensors"), ("release", "r.pth"), ("tresnet", "o.pth")):
        status, printed, err = call("weights", ["convert", weights, tmp_path / out, "--to", to])
        assert (status, err) == (0, "")
        shown = call("weights", ["show", tmp_path / out])[1]
        assert "`" not in shown
        assert ("not known from the file; --slopes sets others" in shown) == (to != "tresnet")
    assert load_model(tmp_path / "r.pth").classes == ("cat", "dog", "bird")
    assert load_model(tmp_path / "o.pth").classes == ("cat", "dog", "bird")


def test_verify_scores_coco_as_scikit_learn_does(tmp_path):
    from sklearn.metrics import average_precision_score

    draw = np.random.RandomState(0)
    (tmp_path / "val2014").mkdir()
    (tmp_path / "annotations").mkdir()
    targets = draw.random_sample((12, 3)) < 0.5
    targets[:, 0] |= ~targets.any(1)
    images, annotations = [], []
    for number, row in enumerate(targets):
        Image.fromarray(draw.randint(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / f"val2014/{number:02}.png")
        images.append({"id": number, "file_name": f"{number:02}.png"})
        annotations += [{"image_id": number, "category_id": int(c) + 1} for c in np.flatnonzero(row)]
    annotations = [{"id": index, **annotation} for index, annotation in enumerate(annotations)]
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(("bird", "cat", "dog"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations/instances_val2014.json").write_text(json.dumps(content))
    model = ImageClassifier(SMALL, {"type": "LinearHead", "num_classes": 3})
    names = ["dog", "bird", "cat"]  # in another order than the data
    torch.save({"model": to_release(model.state_dict()), "idx_to_class": names}, tmp_path / "m.pth")
    status, printed, err = call("weights", ["verify", tmp_path / "m.pth", "--data", tmp_path, "--size", 64])
    assert (status, err) == (0, "")
    found = predict(load_model(tmp_path / "m.pth", input_size=64), find_images([str(tmp_path / "val2014")]))
    wanted = 100 * average_precision_score(targets[:, [2, 0, 1]], found)
    assert f"measured   mAP {wanted:.2f} on 12 images" in printed


def test_verify_counts_the_best_class_of_imagenet(tmp_path):
    model = ImageClassifier(SMALL, {"type": "LinearHead", "num_classes": 2})
    with torch.no_grad():
        model.head.fc.bias.copy_(torch.tensor([5.0, -5.0]))
    meta = {"model": {"multi_label": False, "pipeline": [{"type": "ResizeAndCrop", "size": 32}]}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, tmp_path / "m.pth")
    for folder, count in (("n01", 3), ("n02", 1)):
        (tmp_path / "val" / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (50, 40), "red").save(tmp_path / f"val/{folder}/{number}.jpg")
    status, printed, _ = call("weights", ["verify", tmp_path / "m.pth", "--data", tmp_path])
    assert status == 0
    assert "top-1 75.00 on 4 images" in printed


class Memory:
    """A network with room for so many pictures; whatever else it is asked, it gives 0.5."""

    classes, multi_label, training = ("a",), True, False
    pipeline = ({"type": "SquashResize", "size": 32},)

    def __init__(self, room):
        self.room = room

    def preparation(self):
        return preparation_of(self.pipeline)

    def predict_batch(self, images):
        if len(images) > self.room:
            torch.empty(1 << 60, dtype=torch.uint8)  # what torch itself says where memory lacks
        return np.full((len(images), 1), 0.5, np.float32)


@pytest.mark.parametrize(
    ("room", "words"), [(3, r"batch of 8 .* 32 x 32 .* 2 fit: give `batch_size` 2"), (0, "nor does a single image")]
)
def test_a_batch_that_does_not_fit_names_one_that_does(room, words):
    images = [np.zeros((40, 40, 3), np.uint8)] * 8
    with pytest.raises(UserError, match=words):
        predict(Memory(room), images, batch_size=8)
    if room:
        assert len(predict(Memory(room), images, batch_size=2)) == 8


def test_other_errors_of_a_network_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(Memory, "predict_batch", lambda self, images: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match=r"inconsistent tensor size|size mismatch"):
        predict(Memory(1), [np.zeros((40, 40, 3), np.uint8)])


def test_pillow_image_gets_the_answer_of_its_file(weights, tmp_path):
    draw = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(draw.integers(0, 256, (40, 70, 3), np.uint8)).save(tmp_path / "rotated.png", exif=exif)
    deep = np.linspace(0, 65535, 40 * 70).astype(np.uint16).reshape(40, 70)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    model = load_model(weights, input_size=64)
    for name in ("rotated.png", "deep.png"):
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(predict(model, image), predict(model, tmp_path / name))
