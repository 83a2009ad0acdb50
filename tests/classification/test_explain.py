"""Explanation maps of classifiers: values, position in the image, and no side effects on the model."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from running.small_data import DIGITS, ROOT, call, refused
from torch import nn

from tresnet_downstream import load_model, predict
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.classification.explain import explain, explanation_method, seen_region
from tresnet_downstream.classification.explained_images import explainer
from tresnet_downstream.classification.map_check import boxes_by_class, check_maps, untrained
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.deployment import fuse
from tresnet_downstream.errors import UserError
from tresnet_downstream.prediction.label_output import label_images
from tresnet_downstream.registry import MODELS

pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

SMALL = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
HEADS = {
    "linear": {"type": "LinearHead", "num_classes": 5},
    "bottleneck": {"type": "BottleneckHead", "num_classes": 5, "bottleneck_channels": 8},
    "decoder": {"type": "MLDecoderHead", "num_classes": 5, "embed_dim": 32, "num_heads": 4, "feedforward_dim": 64},
}
SQUASH = ({"type": "SquashResize", "size": (96, 128)},)
PIXELS = np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8)


def classifier(head="linear", backbone=SMALL, pipeline=SQUASH, **changes):
    torch.manual_seed(0)
    classes = [f"class {number}" for number in range(5)]
    model = ImageClassifier(backbone, HEADS[head] if isinstance(head, str) else head, classes=classes, **changes).eval()
    model.pipeline = pipeline
    return model


def inputs_of(model, pixels=PIXELS):
    return model.inputs_of(build_pipeline(model.pipeline)(image=pixels)["image"][None])


# --- numbers


@pytest.mark.parametrize("head", ["linear", "bottleneck"])
@pytest.mark.parametrize("multi_label", [True, False])
def test_maps_are_those_of_grad_cam_on_the_last_stage(head, multi_label):
    model = classifier(head, multi_label=multi_label)
    with GradCAM(model, [model.backbone.layer4]) as cam:
        expected = cam(inputs_of(model).expand(5, -1, -1, -1), [ClassifierOutputTarget(c) for c in range(5)])
    maps = explain(model, PIXELS, range(5), size=(96, 128))
    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected, atol=2e-5)
    assert (maps.shape, maps.dtype) == ((5, 96, 128), np.float32)


def test_maps_of_a_decoder_are_the_mean_attention_of_the_group():
    model = classifier({**HEADS["decoder"], "num_groups": 3}).double()
    head = model.head
    with torch.no_grad():
        features = model.backbone(inputs_of(model))[-1]
        memory = F.relu(head.embed(features.flatten(2).transpose(1, 2)))
        queries = head.decoder.norm1(2 * head.queries)
        weights, bias = head.decoder.multihead_attn.in_proj_weight, head.decoder.multihead_attn.in_proj_bias
        q = (queries @ weights[:32].T + bias[:32]).view(3, 4, 8)
        k = (memory[0] @ weights[32:64].T + bias[32:64]).view(-1, 4, 8)
        attention = torch.einsum("ghd,lhd->hgl", q, k).div(8**0.5).softmax(-1).mean(0).view(3, 3, 4)
        maps = head.attention_maps(features.expand(5, -1, -1, -1), torch.arange(5))
    # Three groups of two classes, the last of one.
    torch.testing.assert_close(maps, attention[[0, 0, 1, 1, 2]])
    shown = explain(model, PIXELS, range(5), size=(3, 4))
    np.testing.assert_allclose(shown, maps / maps.amax((1, 2), keepdim=True), atol=1e-6)


def test_attention_is_that_of_the_forward_pass():
    model = classifier("decoder")
    seen = []
    model.head.decoder.multihead_attn.register_forward_hook(lambda _, given, __: seen.append(given))
    with torch.no_grad():
        features = model.backbone(inputs_of(model))[-1]
        model.head(features)
        model.head.attention_maps(features.expand(5, -1, -1, -1), torch.arange(5))
    torch.testing.assert_close(seen[1][0][:, 0], seen[0][0][0])
    torch.testing.assert_close(seen[1][1][0], seen[0][1][0])


@pytest.mark.parametrize("head", ["linear", "decoder"])
def test_fused_networks_are_explained_alike(head):
    model = classifier(head)
    np.testing.assert_allclose(explain(fuse(model), PIXELS, [1, 3]), explain(model, PIXELS, [1, 3]), atol=1e-3)


@pytest.mark.parametrize("head", ["linear", "decoder"])
def test_bfloat16_is_near_float32(head):
    expected = explain(classifier(head), PIXELS, [0, 2])
    maps = explain(classifier(head).bfloat16(), PIXELS, [0, 2])
    assert maps.dtype == np.float32
    assert np.abs(maps - expected).mean() < 0.03


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnetrs50"])
def test_networks_of_timm_are_explained(name):
    pytest.importorskip("timm")
    maps = explain(classifier(backbone={"type": "TimmNetwork", "model": name}), PIXELS, range(5))
    assert maps.shape == (5, 90, 140)
    assert maps.max() == 1


def test_a_map_is_of_the_class_asked_for():
    model = classifier()
    every = explain(model, PIXELS, range(5))
    np.testing.assert_allclose(explain(model, PIXELS, [3, 1]), every[[3, 1]], atol=1e-5)
    assert np.abs(every[3] - every[1]).max() > 0.1
    assert explain(model, PIXELS, []).shape == (0, 90, 140)


def test_with_test_time_augmentation_maps_are_those_of_both_views():
    model = classifier()
    straight, mirrored = (
        explain(model, pixels, range(5)) for pixels in (PIXELS, np.ascontiguousarray(PIXELS[:, ::-1]))
    )
    model.tta = True
    both, turned = (explain(model, pixels, range(5)) for pixels in (PIXELS, np.ascontiguousarray(PIXELS[:, ::-1])))
    np.testing.assert_allclose(both, turned[:, :, ::-1], atol=1e-4)
    assert np.abs(straight - mirrored[:, :, ::-1]).max() > 0.01
    assert np.abs(both - straight).max() > 0.005


# --- state


@pytest.mark.parametrize("head", ["linear", "decoder"])
@pytest.mark.parametrize("fused", [False, True])
def test_the_model_stays_as_it_is(head, fused):
    model = classifier(head)
    model.head.requires_grad_(False)
    for parameter in model.backbone.parameters():
        parameter.grad = torch.ones_like(parameter)
    model = fuse(model) if fused else model
    before = predict(model, PIXELS)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter.requires_grad for parameter in model.parameters()]
    grads = [parameter.grad for parameter in model.parameters()]
    explain(model, PIXELS, [0, 1])
    assert predict(model, PIXELS).tobytes() == before.tobytes()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert all(one is other for one, other in zip(grads, (p.grad for p in model.parameters()), strict=True))
    assert not any(module._forward_hooks or module._backward_hooks or module.training for module in model.modules())


def test_gradients_of_a_head_that_is_trained_are_left_alone():
    model = classifier()
    model.head.fc.weight.grad = torch.full_like(model.head.fc.weight, 3)
    explain(model, PIXELS, [0])
    assert (model.head.fc.weight.grad == 3).all()
    assert model.head.fc.bias.grad is None


def test_maps_are_computed_in_inference_mode_too():
    model = classifier()
    expected = explain(model, PIXELS, [0])
    with torch.inference_mode():
        np.testing.assert_array_equal(explain(model, PIXELS, [0]), expected)


# --- place


LONGEST = {"type": "LongestMaxSize", "max_size": 96}
PAD = {"type": "PadIfNeeded", "min_height": 96, "min_width": 96, "border_mode": 0}


@pytest.mark.parametrize("size", [(90, 140), (140, 90), (340, 120)])
def test_regions_of_squashed_cropped_and_padded_images(size):
    height, width = size
    assert seen_region(build_pipeline(SQUASH), *size) == (0, 0, 1, 1)
    short = min(size)
    crop = build_pipeline([{"type": "ResizeAndCrop", "size": 96, "fraction": 0.8}])
    half = [0.4 * short / side for side in (width, height)]
    expected = [0.5 - half[0], 0.5 - half[1], 0.5 + half[0], 0.5 + half[1]]
    np.testing.assert_allclose(seen_region(crop, *size), expected, atol=0.012)
    padded = build_pipeline([LONGEST, PAD])
    half = [0.5 * max(size) / side for side in (width, height)]
    expected = [0.5 - half[0], 0.5 - half[1], 0.5 + half[0], 0.5 + half[1]]
    np.testing.assert_allclose(seen_region(padded, *size), expected, atol=0.02)


@pytest.mark.parametrize("size", [(1, 5), (2, 2), (7, 300)])
def test_small_and_narrow_images_have_a_region(size):
    np.testing.assert_allclose(seen_region(build_pipeline(SQUASH), *size), (0, 0, 1, 1), atol=0.01)


def test_pipelines_of_grey_images_have_a_region():
    grey = build_pipeline([*SQUASH, {"type": "ToGray", "p": 1}])
    assert seen_region(grey, 90, 140) == (0, 0, 1, 1)


@pytest.mark.parametrize("step", [{"type": "HorizontalFlip", "p": 1}, {"type": "Transpose", "p": 1}])
def test_pipelines_that_move_pixels_otherwise_are_refused(step):
    with pytest.raises(UserError, match="does more than resize, crop and pad"):
        explain(classifier(pipeline=(*SQUASH, step)), PIXELS, [0])


class Corner(nn.Module):
    """Logits of the feature map's top left cell, whose map is that cell."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features):
        return self.fc(features.mean((2, 3)))

    def attention_maps(self, features, classes):
        maps = torch.zeros(len(features), *features.shape[2:])
        maps[:, 0, 0] = 0.25
        return maps


@pytest.fixture
def own_heads(monkeypatch):
    """Registers heads for one test."""
    monkeypatch.setattr(MODELS, "_module_dict", {**MODELS.module_dict})

    def register(kind):
        MODELS.register_module(module=kind)
        return {"type": kind.__name__, "num_classes": 5}

    return register


def test_a_custom_head_can_provide_its_own_maps(own_heads):
    model = classifier(own_heads(Corner))
    assert explanation_method(model) == "attention"
    heat = explain(model, PIXELS, [2])[0]
    assert np.unravel_index(heat.argmax(), heat.shape) < (30, 35)
    assert heat[60:].max() == heat[:, 70:].max() == 0


def test_maps_are_0_outside_of_the_networks_input(own_heads):
    model = classifier(own_heads(Corner), pipeline=({"type": "ResizeAndCrop", "size": 96, "fraction": 0.5},))
    heat = explain(model, PIXELS, [0])[0]
    rows, columns = np.flatnonzero(heat.any(1)), np.flatnonzero(heat.any(0))
    # Half of the short side, in the middle: rows 22 to 67, columns 47 to 92.
    assert abs(rows[0] - 22) <= 2
    assert abs(columns[0] - 47) <= 2
    assert heat.max() == 1


class Deaf(Corner):
    attention_maps = None

    def forward(self, features):
        return super().forward(features.detach())


class Wrong(Corner):
    def attention_maps(self, features, classes):
        return torch.zeros(1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Deaf, "Deaf returns logits without gradients"), (Wrong, r"Wrong.attention_maps returns \(1,\)")],
)
def test_heads_that_cannot_be_explained_are_named(own_heads, kind, message):
    with pytest.raises(UserError, match=message):
        explain(classifier(own_heads(kind)), PIXELS, [0])


# --- what is refused


def test_bad_input_is_one_line(tmp_path):
    model = classifier()
    with pytest.raises(UserError, match="class 5: the model has the classes 0 to 4"):
        explain(model, PIXELS, [5])
    with pytest.raises(UserError, match="in training mode"):
        explain(classifier().train(), PIXELS, [0])
    with pytest.raises(UserError, match="no head"):
        explain(ImageClassifier(SMALL, None).eval(), PIXELS, [0])
    with pytest.raises(UserError, match="load it with load_model"):
        explain(classifier(pipeline=()), PIXELS, [0])
    with pytest.raises(UserError, match="an exported model cannot be explained"):
        explanation_method(object())
    with pytest.raises(UserError, match="name a folder"):
        next(label_images(model, ["a.jpg"], explain=explainer(model)))


def test_a_missing_package_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch_grad_cam"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match=r"pip install 'tresnet-downstream\[explain\]'"):
        explain(classifier(), PIXELS, [0])
    assert explain(classifier("decoder"), PIXELS, [0]).max() == 1


# --- tools


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of three classes and two pictures."""
    from tresnet_downstream.weights.formats import to_release

    torch.manual_seed(0)
    model = ImageClassifier(SMALL, {"type": "LinearHead", "num_classes": 3})
    names = {0: "cat", 1: "dog", 2: "a bird with a name that is too long for the space below a picture"}
    torch.save({"model": to_release(model.state_dict()), "num_classes": 3, "idx_to_class": names}, tmp_path / "w.pth")
    for name in ("a.jpg", "a.png", "a_explained.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    return tmp_path / "w.pth"


def test_predict_draws_maps_beside_images_and_names_them(weights, tmp_path):
    pictures = [tmp_path / name for name in ("a.jpg", "a.png", "a_explained.png")]
    arguments = [weights, *pictures, "--size", 64, "--json", "--out", tmp_path / "out"]
    status, plain, err = call("predict", [*arguments, "--top-k", 2])
    assert (status, err) == (0, "")
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    status, printed, err = call("predict", [*arguments, "--top-k", 2, "--explain"])
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in printed.splitlines()]
    names = [row.pop("explanation") for row in rows]
    assert rows == [json.loads(line) for line in plain.splitlines()]
    assert len(set(names)) == 3
    assert not {path.rsplit("/", 1)[1] for path in names} & drawn.keys()
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in drawn.items())
    for path in names:
        with Image.open(path) as image:
            assert image.width > 3 * 320  # the picture and two maps
    status, printed, _ = call("predict", [*arguments, "--threshold", 1, "--explain"])
    assert [json.loads(line)["explanation"] for line in printed.splitlines()] == [None] * 3


def test_labels_of_the_same_name_have_maps_of_their_own(own_heads, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    model = classifier()
    model.classes = ("crane",) * 5
    asked = []
    model.head.register_forward_hook(lambda _, __, logits: asked.append(logits.shape))
    list(label_images(model, [str(tmp_path / "a.png")], top_k=3, out=tmp_path / "out", explain=explainer(model)))
    assert asked == [(1, 5), (3, 5)]
    drawn = np.asarray(Image.open(tmp_path / "out" / "a_explained.jpg"), int)
    assert np.abs(drawn[20:220, 360:600] - drawn[20:220, 696:936]).mean() > 2


def test_predict_says_what_cannot_be_explained(weights, tmp_path):
    refused("predict", [weights, tmp_path / "a.jpg", "--explain"], "--explain", "--out")


# --- boxes


def test_maps_are_measured_against_boxes(tmp_path, own_heads):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS).save(tmp_path / "b.png")
    images = [{"id": n, "file_name": f"{name}.png", "width": 140, "height": 90} for n, name in enumerate("ab")]
    boxes = [[0, 0, 70, 45], [70, 45, 70, 45]]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": 3150, "iscrowd": 0}
        for n, box in enumerate(boxes)
    ]
    categories = [{"id": n + 1, "name": f"class {n}"} for n in range(5)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    model = classifier(own_heads(Corner))
    found = check_maps(model, tmp_path / "boxes.json", tmp_path)
    # The corner's cell lies in the first box alone.
    assert (found.images, found.maps, found.empty, found.above) == (2, 2, 0, 0.5)
    assert (found.mass, found.area) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.25))
    assert check_maps(model, tmp_path / "boxes.json", tmp_path, most=1).mass > 0.95
    with pytest.raises(UserError, match="`most` 0"):
        check_maps(model, tmp_path / "boxes.json", tmp_path, most=0)
    with pytest.raises(UserError, match="classes"):
        boxes_by_class(tmp_path / "boxes.json", ("other",))


def make_squares(folder, split, count):
    """Pictures of 96 x 96 with one or two of three coloured squares on noise, and their boxes as a COCO file."""
    (folder / split).mkdir(parents=True)
    draw = np.random.default_rng(len(split))
    images, annotations = [], []
    for number in range(count):
        pixels = draw.integers(60, 190, (96, 96, 3), dtype=np.uint8)
        for label in draw.choice(3, draw.integers(1, 3), replace=False).tolist():
            left, top = draw.integers(0, 66, 2).tolist()
            pixels[top : top + 30, left : left + 30] = np.roll((240, 20, 20), label)
            box = {"bbox": [left, top, 30, 30], "area": 900, "iscrowd": 0}
            annotations.append({"id": len(annotations), "image_id": number, "category_id": label + 1, **box})
        Image.fromarray(pixels).save(folder / split / f"{number:03}.png")
        images.append({"id": number, "file_name": f"{number:03}.png", "width": 96, "height": 96})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(("red", "green", "blue"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))


def trained_and_untrained(folder, data, places, *changes):
    """What the maps of a short training have in their boxes, and those of random weights in the same network."""
    options = [f"data_root={data}", "num_workers=0", "max_epochs=12", *changes]
    status, _, err = call("train_multilabel", [DIGITS, "--work-dir", folder, "--cfg-options", *options])
    assert status == 0, err
    model = load_model(folder / "best.pth")
    trained = check_maps(model, *places)
    status, out, _ = call("check_maps", [folder / "best.pth", "--annotations", places[0], "--images", places[1]])
    assert status == 0
    assert f"{100 * trained.mass:.1f}% of a map's mass" in out
    return trained, check_maps(untrained(folder / "best.pth", model), *places)


@pytest.mark.slow
def test_grad_cam_of_a_trained_network_lies_on_the_digits_and_of_an_untrained_one_hardly(tmp_path):
    pytest.importorskip("sklearn", reason="needs the extra digits")
    data = tmp_path / "digits"
    maker = [sys.executable, ROOT / "data" / "make_digits.py", "--out", data, "--train", "1200", "--val", "60"]
    subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
    places = data / "annotations" / "instances_val.json", data / "val"
    trained, before = trained_and_untrained(tmp_path / "run", data, places, "image_size=64", "max_epochs=24")
    assert trained.mass > 1.6 * trained.area
    # Random convolutions answer to contrast, and so to digits of any class.
    assert before.mass < 1.5 * before.area
    assert trained.mass > 1.4 * before.mass


@pytest.mark.slow
def test_attention_of_a_trained_network_lies_on_the_objects_and_of_an_untrained_one_anywhere(tmp_path):
    make_squares(tmp_path, "train", 320)
    make_squares(tmp_path, "val", 60)
    files = "train_annotations=train.json", "val_annotations=val.json"
    head = "model.head=dict(type='MLDecoderHead',embed_dim=64,num_heads=4,feedforward_dim=128)"
    places = tmp_path / "val.json", tmp_path / "val"
    trained, before = trained_and_untrained(tmp_path / "run", tmp_path, places, *files, head)
    assert trained.mass > 2 * trained.area
    assert before.mass == pytest.approx(before.area, rel=0.05)
