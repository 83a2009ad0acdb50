import pytest
import torch
from mmengine.optim import OptimWrapper

from tresnet_downstream.classification import ImageClassifier, ImagePreprocessor
from tresnet_downstream.classification.classifier import NonFiniteLossError
from tresnet_downstream.errors import UserError

CLASSES = ("cat", "dog", "tree")
BACKBONE = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.125}
HEAD = {"type": "LinearHead", "num_classes": 3}


def make(backbone=BACKBONE, head=HEAD, loss="AsymmetricLoss", classes=CLASSES, **loss_options):
    return ImageClassifier(backbone, head, loss and {"type": loss, **loss_options}, classes)


def batch():
    return {
        "inputs": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8),
        "targets": torch.tensor([[1, 0, -1], [0, 0, 1]], dtype=torch.int8),
        "image": ["a.jpg", "b.jpg"],
        "index": torch.tensor([4, 7]),
    }


def optimiser(model):
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))


def test_numbers_of_classes_that_differ_are_both_named():
    with pytest.raises(UserError, match=r"num_classes=80\b.*\b3 classes"):
        make(head={**HEAD, "num_classes": 80})


@pytest.mark.parametrize("head", [{"type": "LinearHead", "num_classes": None}, {"type": "LinearHead"}])
def test_a_head_without_a_number_of_classes_takes_it_from_the_data(head):
    assert make(head=head).head.num_classes == 3
    assert head.get("num_classes") is None  # the config stays as it was


def test_a_classifier_without_class_names_takes_the_number_of_the_head():
    model = make(classes=None)
    assert model.classes is None
    assert model.head.num_classes == 3


@pytest.mark.parametrize("variant", [{}, {"width": 0.25}, {"blocks": ("basic",) * 4}])
@pytest.mark.parametrize("head", ["LinearHead", "MLDecoderHead"])
def test_the_head_takes_the_channels_of_the_last_stage(variant, head):
    model = make(backbone={**BACKBONE, **variant}, head={**HEAD, "type": head}).eval()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_the_preprocessor_gives_0_to_1_channels_last_and_leaves_the_rest():
    data = batch()
    got = ImagePreprocessor()(data)
    assert got["inputs"].dtype == torch.float32
    assert got["inputs"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got["inputs"] * 255, data["inputs"].float())
    assert got["image"] == ["a.jpg", "b.jpg"]
    assert torch.equal(got["targets"], data["targets"])
    levels = ImagePreprocessor()({"inputs": torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 4, 2)})
    assert torch.equal(levels["inputs"][0, 0, 0], torch.tensor([0.0, 1.0]))


def test_prediction_gives_a_probability_for_each_class():
    model = make(loss=None).eval()
    raw = batch()
    data = model.data_preprocessor(raw)
    probabilities = model(**data, mode="predict")
    assert probabilities.shape == (2, 3)
    torch.testing.assert_close(probabilities, torch.sigmoid(model(data["inputs"])))
    assert torch.equal(model.val_step(raw), probabilities)


@pytest.mark.parametrize("head", ["LinearHead", "MLDecoderHead"])
def test_logits_and_probabilities_under_autocast_are_float32(head):
    model = make(head={**HEAD, "type": head}).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        logits, probabilities = model(images), model(images, mode="predict")
    assert logits.dtype == probabilities.dtype == torch.float32
    torch.testing.assert_close(logits, model(images), rtol=0.05, atol=0.05)


def test_the_loss_is_that_of_the_logits():
    model = make().eval()
    data = model.data_preprocessor(batch())
    got = model(**data, mode="loss")["loss"]
    torch.testing.assert_close(got, model.loss(model(data["inputs"]), data["targets"]))


def test_a_step_moves_the_weights_and_logs_the_loss_per_image():
    model = make()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    logged = model.train_step(batch(), optimiser(model))
    assert logged["loss_per_image"].item() == pytest.approx(logged["loss"].item() / 2)
    assert not logged["loss"].requires_grad
    assert not torch.equal(model.head.fc.weight, before["head.fc.weight"])
    assert not torch.equal(model.backbone.stem.conv.weight, before["backbone.stem.conv.weight"])


def test_a_loss_that_is_a_mean_is_logged_as_it_is():
    model = make(reduction="mean")
    logged = model.train_step(batch(), optimiser(model))
    assert logged["loss_per_image"] == logged["loss"]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_not_finite_names_the_images_before_the_weights_change(value):
    model = make(loss="BinaryCrossEntropy")
    with torch.no_grad():
        model.head.fc.bias[1] = value
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(NonFiniteLossError, match=rf"{value}.*a\.jpg, b\.jpg") as raised:
        model.train_step(batch(), optimiser(model))
    assert "\n" not in str(raised.value)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.nan_to_num(), before[name].nan_to_num()), name
        assert parameter.grad is None, name


def test_a_loss_needs_a_loss_function_and_targets():
    data = make().data_preprocessor(batch())
    with pytest.raises(ValueError, match="loss"):
        make(loss=None)(**data, mode="loss")
    with pytest.raises(ValueError, match="targets"):
        make()(data["inputs"], mode="loss")


def test_a_multi_label_loss_with_one_label_per_image_is_refused():
    model = ImageClassifier(backbone=BACKBONE, head=HEAD, multi_label=False)
    model.loss = torch.nn.BCEWithLogitsLoss()
    with pytest.raises(UserError, match=r"BCEWithLogitsLoss does not take N class indices.*choose CrossEntropy"):
        model(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), mode="loss")
