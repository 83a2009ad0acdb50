import pytest
import torch
from golden_networks import golden, pictures, release_state_dict
from torch import nn

from tresnet_downstream import TResNet
from tresnet_downstream.classification import BottleneckHead, LinearHead, MLDecoderHead
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import backbone_name
from tresnet_downstream.weights.head_names import our_head_name


def our_name(key):
    return f"backbone.{backbone_name(key[5:])}" if key.startswith("body.") else our_head_name(key, "MLDecoderHead")


class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.backbone = TResNet("m")
        self.head = MLDecoderHead(2048, num_classes, dropout=0)

    def forward(self, x):
        return self.head(self.backbone(x)[-1])


@pytest.fixture
def published():
    """ML-Decoder on TResNet-M, its pictures and its numbers; all weights from the release's keys."""
    expected = golden("ml_decoder_tresnet_m_80_full")
    weights = release_state_dict(expected["keys"])
    network = Network(expected["num_classes"]).double()
    network.backbone.load_state_dict({key: value for key, value in weights.items() if key.startswith("body.")})
    head = {our_name(key): value for key, value in weights.items() if key.startswith("head.")}
    network.head.load_state_dict({key.removeprefix("head."): value for key, value in head.items()})
    return network, pictures(expected["input"]["size"]), expected


def assert_same_logits(logits, expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    assert (logits - expected).abs().max() <= 1e-8 * expected.abs().max()


def assert_same_gradients(network, logits, expected):
    loss = (logits**2).mean()
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-8)
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    # Those of the backbone are what the head passes back.
    assert set(gradients) == {our_name(key) for key in expected["grad"]}
    for key, wanted in expected["grad"].items():
        gradient = gradients[our_name(key)]
        assert gradient.norm().item() == pytest.approx(wanted["norm"], rel=1e-6, abs=1e-12), key
        assert gradient.sum().item() == pytest.approx(wanted["sum"], abs=1e-5 * wanted["norm"] + 1e-12), key


@pytest.mark.slow
def test_ml_decoder_equals_the_release_in_evaluation(published):
    network, images, expected = published
    logits = network.eval()(images)
    assert_same_logits(logits, expected["eval"]["logits"])
    assert_same_gradients(network, logits, expected["eval_grad"])


@pytest.mark.slow
def test_ml_decoder_equals_the_release_in_training(published):
    network, images, expected = published
    logits = network.train()(images)
    assert_same_logits(logits, expected["train"]["logits"])
    assert_same_gradients(network, logits, expected["train"])


def test_linear_head_starts_as_published():
    weight = LinearHead(2048, 80).fc.weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert weight.mean().abs() < 1e-4


def test_linear_head_is_average_pooling_and_a_matrix():
    head, features = LinearHead(6, 4).double(), torch.randn(3, 6, 5, 7, dtype=torch.float64)
    pooled = features.sum((2, 3)) / 35
    torch.testing.assert_close(head(features), pooled @ head.fc.weight.T + head.fc.bias)


def small_decoder(num_classes, num_groups, **options):
    options = {"embed_dim": 16, "num_heads": 2, "feedforward_dim": 24, "dropout": 0, **options}
    return MLDecoderHead(8, num_classes, num_groups, **options)


def decoded_by(head, features):
    """The logits, and what went into the step that gives them."""
    kept = []
    handle = head.decoder.register_forward_hook(lambda module, args, output: kept.append(output))
    logits = head(features)
    handle.remove()
    return logits, kept[0]


# Dividing, not dividing, and with idle groups: 10 classes by 7 groups are 5 pairs.
@pytest.mark.parametrize(("num_classes", "num_groups", "group_size"), [(6, 3, 2), (7, 3, 3), (10, 7, 2), (5, 5, 1)])
def test_each_class_is_one_column_of_its_group(num_classes, num_groups, group_size):
    head = small_decoder(num_classes, num_groups).double()
    nn.init.normal_(head.group_bias)
    logits, decoded = decoded_by(head, torch.randn(2, 8, 3, 3, dtype=torch.float64))
    assert logits.shape == (2, num_classes)
    assert decoded.shape == (2, num_groups, 16)
    for image in range(2):
        for label in range(num_classes):
            group, column = divmod(label, group_size)
            expected = decoded[image, group] @ head.group_weight[group, :, column] + head.group_bias[label]
            torch.testing.assert_close(logits[image, label], expected)


@pytest.mark.parametrize("group", range(3))
def test_a_query_changes_only_the_logits_of_its_group(group):
    head, features = small_decoder(7, 3).double().eval(), torch.randn(2, 8, 3, 3, dtype=torch.float64)
    before = head(features)
    head.queries[group] += torch.randn(16)
    moved = (head(features) != before).all(0)
    assert moved.tolist() == [label // 3 == group for label in range(7)]


@pytest.mark.parametrize(("num_classes", "num_groups", "expected"), [(5, 9, 5), (80, None, 80), (250, None, 100)])
def test_there_are_never_more_groups_than_classes_and_100_by_default(num_classes, num_groups, expected):
    head = small_decoder(num_classes, num_groups)
    assert head.num_groups == len(head.queries) == expected


def test_queries_are_saved_and_not_trained():
    head = small_decoder(7, 3)
    assert "queries" in head.state_dict()
    assert "queries" not in dict(head.named_parameters())
    head(torch.randn(2, 8, 3, 3)).sum().backward()
    assert not head.queries.requires_grad
    assert head.queries.grad is None


def test_dropout_acts_only_in_training():
    head, features = small_decoder(7, 3, dropout=0.5), torch.randn(2, 8, 3, 3)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize(("options", "message"), [
    ({"num_groups": 0}, "num_groups=0"),
    ({"num_groups": 3, "num_heads": 3}, "embed_dim=16.*num_heads=3"),
])  # fmt: skip
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(UserError, match=message):
        small_decoder(7, **options)


def test_linear_head_under_autocast_equals_float32():
    head, features = LinearHead(64, 10), torch.randn(4, 64, 7, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head(features.float()), rtol=1e-6, atol=1e-7)


def test_ml_decoder_projects_its_groups_in_float32_under_autocast():
    head = small_decoder(7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits, decoded = decoded_by(head, torch.randn(4, 8, 3, 3).bfloat16())
    by_group = torch.einsum("ngd,gdk->ngk", decoded.float(), head.group_weight)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, by_group.flatten(1)[:, :7] + head.group_bias, rtol=1e-6, atol=1e-7)


HEADS = [lambda: LinearHead(8, 7), lambda: BottleneckHead(8, 7, 3), lambda: small_decoder(7, 3)]


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", HEADS, ids=["linear", "bottleneck", "decoder"])
def test_logits_have_the_precision_of_the_weights(make, dtype, amp):
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        logits = make().to(dtype)(torch.randn(2, 8, 3, 3, dtype=dtype))
    assert logits.dtype == dtype


@pytest.mark.parametrize("make", HEADS, ids=["linear", "bottleneck", "decoder"])
def test_an_exported_head_takes_batches_of_any_size(make):
    head, batch = make().eval(), torch.export.Dim("batch")
    exported = torch.export.export(head, (torch.randn(2, 8, 3, 3),), dynamic_shapes=({0: batch},)).module()
    features = torch.randn(5, 8, 3, 3)
    torch.testing.assert_close(exported(features), head(features))
