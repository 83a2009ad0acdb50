"""Joint models: boxes equal the detector's, labels equal the classifier's, and both losses are added."""

import copy

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from joint.small_joint import HEAD, LOSS, batch, detector_config, joint
from mmdet.registry import MODELS
from torch import nn

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.heads import BottleneckHead, LinearHead, MLDecoderHead
from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.joint.model import LabelsAndBoxes, mask_of
from tresnet_downstream.registry import MODELS as OURS

MIXED = ((64, 64), (40, 64), (64, 33))


def alone(model, detector):
    """The detector of a joint model, built by MMDetection."""
    built = MODELS.build(detector_config(detector))
    built.load_state_dict(model.detector.state_dict())
    return built.train(model.training)


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn_tresnet_m"])
def test_boxes_are_bit_equal_to_those_of_the_detector_alone(detector):
    model = joint(detector).eval()
    images, samples = batch(MIXED)
    with torch.inference_mode():
        expected = alone(model, detector)(images, copy.deepcopy(samples), mode="predict")
        given = model(images, samples, mode="predict")
    assert sum(len(sample.pred_instances) for sample in given) > 0
    for one, other in zip(given, expected, strict=True):
        for name in ("bboxes", "scores", "labels"):
            assert torch.equal(one.pred_instances[name], other.pred_instances[name])
        assert one.label_probabilities.shape == (2,)


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn_tresnet_m"])
def test_losses_of_boxes_and_their_gradients_are_those_of_the_detector_alone(detector):
    model = joint(detector, loss_weights={"labels": 0.0, "boxes": 1.0}).train()
    other = alone(model, detector)
    images, samples = batch()
    for network in (model, other):
        torch.manual_seed(1)  # the sampling of regions
        losses = network(images, copy.deepcopy(samples), mode="loss")
        assert ("loss_labels" in losses) == (network is model)
        network.parse_losses(losses)[0].backward()
    for (name, one), two in zip(model.detector.named_parameters(), other.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), name
        assert one.grad is None or torch.equal(one.grad, two.grad), name


@pytest.mark.parametrize("head", [HEAD, {"type": "tresnet_downstream.MLDecoderHead", "embed_dim": 16, "num_heads": 2}])
def test_labels_are_those_of_a_classifier_of_the_same_weights(head):
    model = joint(label_head={**head, "num_classes": 2}).eval()
    backbone = {key: value for key, value in detector_config().backbone.items() if key != "out_indices"}
    classifier = ImageClassifier(backbone, {**head, "num_classes": 2}, classes=("disc", "square")).eval()
    classifier.backbone.load_state_dict(model.detector.backbone.state_dict())
    classifier.head.load_state_dict(model.label_head.state_dict())
    images, samples = batch()
    with torch.inference_mode():
        # A classifier is laid out channels-last, a detector is not: the same sums in another order.
        assert torch.allclose(model(images, samples)[1], classifier(images), atol=1e-5)
        logits = classifier.to(memory_format=torch.contiguous_format)(images)
        given = model(images, samples, mode="predict")
        assert torch.equal(model(images, samples)[1], logits)
    assert torch.equal(torch.stack([sample.label_probabilities for sample in given]), torch.sigmoid(logits))


@pytest.mark.parametrize(
    "head",
    [LinearHead(6, 3), BottleneckHead(6, 3, 4), MLDecoderHead(6, 3, embed_dim=8, num_heads=2, feedforward_dim=16)],
    ids=lambda head: type(head).__name__,
)
def test_heads_ignore_masked_positions(head):
    head = head.double().eval()
    features = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    sizes = [(4, 5), (2, 5), (3, 1)]
    for row, (height, width) in zip(mask, sizes, strict=True):
        row[:height, :width] = True
    masked = head(features, mask=mask)
    for number, (height, width) in enumerate(sizes):
        cut = head(features[number : number + 1, :, :height, :width])
        assert torch.allclose(masked[number], cut[0], atol=1e-12)
    features[~mask[:, None].expand_as(features)] = 1e6
    assert torch.allclose(head(features, mask=mask), masked, atol=1e-9)


def test_mask_has_the_positions_that_an_image_reaches():
    features = torch.zeros(3, 1, 2, 2)
    assert mask_of(features, batch(MIXED)[1]) is None
    mask = mask_of(torch.zeros(2, 1, 4, 4), batch(((64, 64), (33, 16)))[1])
    assert mask[1].tolist() == [[True, False, False, False]] * 3 + [[False] * 4]
    assert mask_of(features, batch()[1]) is None


def test_labels_of_a_batch_are_the_classes_of_its_boxes_and_of_crowds():
    model, (_, samples) = joint(), batch()
    samples[1].ignored_instances.bboxes = torch.zeros(1, 4)
    samples[1].ignored_instances.labels = torch.tensor([0])
    assert model._targets(samples).tolist() == [[1, 0], [1, 1]]
    samples[0].image_labels = torch.tensor([-1, 1], dtype=torch.int8)
    assert model._targets(samples).tolist() == [[-1, 1], [1, 1]]


def test_fixed_weights_scale_the_losses():
    images, samples = batch()
    one = joint()(images, copy.deepcopy(samples), mode="loss")
    two = joint(loss_weights={"labels": 3.0, "boxes": 0.5})(images, copy.deepcopy(samples), mode="loss")
    assert torch.allclose(two["loss_labels"], 3 * one["loss_labels"])
    assert torch.allclose(two["loss_cls"][0], one["loss_cls"][0] / 2)
    assert "loss_log_variances" not in one


def test_learned_weights_are_those_of_kendall():
    model = joint(loss_weights="learned")
    images, samples = batch()
    plain = joint()(images, copy.deepcopy(samples), mode="loss")
    with torch.no_grad():
        model.log_variances.copy_(torch.tensor([0.3, -0.2]))
    losses = model(images, copy.deepcopy(samples), mode="loss")
    total, _ = model.parse_losses(losses)
    boxes = sum(
        sum(value) if isinstance(value, list) else value for name, value in plain.items() if name != "loss_labels"
    )
    labels = plain["loss_labels"]
    expected = labels / (2 * np.exp(0.3)) + 0.3 / 2 + boxes / (2 * np.exp(-0.2)) - 0.2 / 2
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    total.backward()
    # d/ds of L exp(-s) / 2 + s / 2
    assert model.log_variances.grad[0].item() == pytest.approx((1 - labels * np.exp(-0.3)).item() / 2, rel=1e-4)


def test_images_without_boxes_train_only_the_labels():
    model = joint(loss_weights="learned").train()
    images, samples = batch()
    for sample in samples:
        sample.set_metainfo({"has_boxes": False})
        sample.image_labels = torch.tensor([1, 0], dtype=torch.int8)
    losses = model(images, samples, mode="loss")
    assert set(losses) == {"loss_labels", "loss_log_variances"}
    model.parse_losses(losses)[0].backward()
    assert model.detector.bbox_head.retina_cls.weight.grad is None
    assert model.log_variances.grad[1] == 0
    samples[0].set_metainfo({"has_boxes": True})
    with pytest.raises(UserError, match="AlternatingBatchSampler"):
        model(images, samples, mode="loss")


def test_scores_are_multiplied_by_calibrated_probabilities():
    model, rescored = joint().eval(), joint(rescore={"scale": 0.5, "shift": -1.0}).eval()
    rescored.load_state_dict(model.state_dict())
    images, samples = batch(MIXED)
    with torch.inference_mode():
        logits = model(images, copy.deepcopy(samples))[1]
        before = model(images, copy.deepcopy(samples), mode="predict")
        after = rescored(images, samples, mode="predict")
    for one, other, row in zip(before, after, logits, strict=True):
        factors = torch.sigmoid(0.5 * row - 1)[one.pred_instances.labels]
        assert torch.equal(other.pred_instances.scores, one.pred_instances.scores * factors)
        assert torch.equal(other.pred_instances.bboxes, one.pred_instances.bboxes)
        assert torch.equal(one.label_probabilities, other.label_probabilities)


def test_hooks_find_the_parts_of_the_detector():
    model = joint()
    assert model.bbox_head is model.detector.bbox_head
    assert copy.deepcopy(model).neck is not model.neck
    with pytest.raises(AttributeError, match="no_such_part"):
        model.no_such_part  # noqa: B018


@OURS.register_module()
class HeadWithoutMask(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, features):
        return features.mean((2, 3))[:, : self.num_classes]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_head": {"type": "tresnet_downstream.HeadWithoutMask", "num_classes": 2}}, "must take `mask`"),
        ({"loss_weights": {"labels": -1}}, "labels.loss_weights.labels=-1"),
        ({"loss_weights": "leanred"}, "or 'learned'"),
        ({"loss_weights": {"masks": 1}}, "dict\\(labels=..., boxes=...\\)"),
        ({"rescore": {"scale": 1}}, "tresnet calibrate"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        joint(**options)


def test_a_loss_that_is_not_finite_names_the_images():
    model = joint()
    with torch.no_grad():
        model.label_head.fc.weight.fill_(float("inf"))
    images, samples = batch()
    with pytest.raises(NonFiniteLossError, match="in the batch of 0, 1"):
        model(images, samples, mode="loss")


def test_a_model_that_is_no_detector_is_refused():
    with pytest.raises(UserError, match="is not a single detector"):
        LabelsAndBoxes({"type": "tresnet_downstream.LinearHead", "in_channels": 3, "num_classes": 2}, HEAD, LOSS)


def test_a_head_of_labels_initialises_itself():
    from tresnet_downstream.classification import LinearHead
    from tresnet_downstream.registry import MODELS

    @MODELS.register_module(force=True)
    class HeadOfOnes(LinearHead):
        def init_weights(self):
            torch.nn.init.ones_(self.fc.weight)

    model = joint(label_head={"type": "tresnet_downstream.HeadOfOnes", "num_classes": 2})
    model.init_weights()
    assert (model.label_head.fc.weight == 1).all()
