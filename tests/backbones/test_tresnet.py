import copy
import pickle

import pytest
import timm
import torch
from golden_networks import golden, pictures, release_state_dict
from mmengine.analysis import get_model_complexity_info
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from tresnet_downstream import TResNet
from tresnet_downstream.backbones import ActivatedBatchNorm
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import backbone_name

SMALL = {"layers": (2, 2, 2, 1), "width": 0.25}


class Classifier(nn.Module):
    def __init__(self, backbone, num_classes):
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.feature_info[-1]["channels"], num_classes)

    def forward(self, x):
        return self.fc(self.backbone(x)[-1].mean((2, 3)))


def published_network(norm):
    if norm == "inplace_abn":
        pytest.importorskip("inplace_abn")
    expected = golden("official_tresnet_m")
    weights = release_state_dict(expected["keys"])
    network = Classifier(TResNet("m", norm=norm), expected["num_classes"]).double()
    network.backbone.load_state_dict({key: value for key, value in weights.items() if key.startswith("body.")})
    network.fc.load_state_dict({"weight": weights["head.fc.weight"], "bias": weights["head.fc.bias"]})
    return network, pictures(expected["input"]["size"]), expected


def our_name(key):
    return f"backbone.{backbone_name(key[5:])}" if key.startswith("body.") else key.removeprefix("head.")


def close(got, wanted, relative):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    return (torch.as_tensor(got).double() - wanted).abs().max() <= relative * wanted.abs().max()


def same_gradients(network, expected, relative):
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for key, numbers in expected.items():
        gradient = gradients[our_name(key)]
        assert close(gradient.norm(), numbers["norm"], relative), key
        assert abs(gradient.sum() - numbers["sum"]) <= 10 * relative * numbers["norm"], key


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["inplace", "batchnorm", "inplace_abn"])
def test_evaluation_equals_the_release(norm):
    network, images, expected = published_network(norm)
    network.eval()
    logits = network(images)
    assert close(logits.detach(), expected["eval"]["logits"], 1e-8)
    (logits**2).mean().backward()
    same_gradients(network, expected["eval_grad"]["grad"], 1e-6)
    with torch.no_grad():
        for stage, numbers in zip(network.backbone(images), expected["eval"]["stages"], strict=True):
            assert list(stage.shape) == numbers["shape"]
            assert close(stage.flatten()[numbers["index"]], numbers["values"], 1e-8)
        assert close(network.float()(images.float()), expected["eval"]["logits"], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["inplace", "batchnorm", "inplace_abn"])
def test_training_equals_the_release(norm):
    network, images, expected = published_network(norm)
    logits = network.train()(images)
    loss = (logits**2).mean()
    loss.backward()
    assert close(logits.detach(), expected["train"]["logits"], 1e-6)
    assert close(loss.detach(), expected["train"]["loss"], 1e-6)
    same_gradients(network, expected["train"]["grad"], 1e-6)
    buffers = dict(network.named_buffers())
    for key, numbers in expected["train"]["running"].items():
        assert close(buffers[our_name(key)].mean(), numbers["mean"], 1e-6), key
        assert close(buffers[our_name(key)].std(), numbers["std"], 1e-6), key


# Parameters with a linear layer of 1000 classes, from the releases.
@pytest.mark.parametrize(
    ("variant", "parameters"), [("m", 31_389_032), ("l", 55_989_256), ("xl", 78_436_244), ("v2_l", 46_174_824)]
)
def test_variants_have_the_published_number_of_parameters(variant, parameters):
    with torch.device("meta"):
        network = Classifier(TResNet(variant), 1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_any_sizes_blocks_and_slopes_build():
    network = TResNet(
        layers=(1, 1, 1, 1), width=0.5, blocks=("bottleneck", "basic", "basic", "bottleneck"), slopes=(0.1, 0.2)
    )
    assert [info["channels"] for info in network.feature_info] == [128, 64, 128, 1024]
    assert network.stem.norm.slope == pytest.approx(0.1)
    assert network.layer1[0].norm1.slope == pytest.approx(0.2)
    features = network(torch.rand(1, 3, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(128, 16, 16), (64, 8, 8), (128, 4, 4), (1024, 2, 2)]


def test_is_built_by_name_from_mmengines_root():
    assert isinstance(MODELS.build({"type": "TResNet", **SMALL}), TResNet)


@pytest.mark.parametrize(
    "arguments",
    [
        {"variant": "s"},
        {"blocks": ("basic", "wide", "basic", "basic")},
        {"layers": (1, 1)},
        {"out_indices": (4,)},
        {"frozen_stages": 5},
        {"norm": "instance"},
        {"width": 0.001},
        {"with_cp": -1},
        {"with_cp": (1, 2)},
    ],
)
def test_wrong_arguments_raise_a_user_error(arguments):
    with pytest.raises(UserError):
        TResNet(**arguments)


def test_multiply_adds_of_m_are_the_published():
    flops = get_model_complexity_info(TResNet("m"), (3, 224, 224), show_table=False, show_arch=False)["flops"]
    assert flops == pytest.approx(5.7e9, rel=0.02)


@pytest.mark.parametrize("side", [20, 36, 52, 100])
def test_sides_divisible_by_four_give_timms_shapes(side):
    ours = TResNet(**SMALL).eval()
    theirs = timm.create_model("tresnet_m").eval()
    with torch.no_grad():
        shapes = [f.shape[2:] for f in ours(torch.rand(1, 3, side, side + 4))]
        last = theirs.forward_features(torch.rand(1, 3, side, side + 4)).shape[2:]
    assert shapes[-1] == last


@pytest.mark.parametrize("sides", [(30, 32), (32, 33), (16, 32)])
def test_other_sides_are_refused(sides):
    with pytest.raises(ValueError, match="divisible by 4 and at least 20"):
        TResNet(**SMALL)(torch.rand(1, 3, *sides))


def test_a_newly_initialised_block_is_the_identity():
    for block in (m for m in TResNet(**SMALL).modules() if hasattr(m, "last_norm")):
        assert (getattr(block, block.last_norm).weight == 0).all()


def test_initialisation_of_convolutions_is_kaimings_over_the_fan_out():
    weight = TResNet("m").layer4[0].conv2.weight.detach()
    assert weight.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)


def step(network, x, **autocast):
    """One training pass; the tail's weights are made non-zero so that every gradient flows."""
    network.train().zero_grad()
    with torch.autocast("cpu", **autocast) if autocast else torch.enable_grad():
        features = network(x)
        loss = sum((f.float() ** 2).mean() if f.dtype != torch.float64 else (f**2).mean() for f in features)
    loss.backward()
    return features, [p.grad.clone() for p in network.parameters()], list(network.state_dict().values())


def twin(network, **changes):
    other = TResNet(**{**SMALL, **changes}).to(next(network.parameters()).dtype)
    other.load_state_dict(network.state_dict())
    return other


def lively(**changes):
    network = TResNet(**{**SMALL, **changes}).double()
    with torch.no_grad():
        for norm in network.norms():
            norm.weight.normal_()
            norm.bias.normal_(std=0.1)
    return network


@pytest.mark.parametrize("changes", [{}, {"blocks": ("bottleneck",) * 4}, {"norm_eval": True}, {"norm": "sync"}])
def test_lean_steps_equal_plain_operators(changes):
    network = lively(**changes)
    plain = twin(network, **{**changes, "norm": "batchnorm"})
    x = torch.rand(2, 3, 64, 64).double()
    for ours, theirs in zip(step(network, x), step(plain, x), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("with_cp", [False, True, 2])
def test_gradients_and_buffers_of_m_equal_those_of_plain_operators(with_cp):
    torch.manual_seed(4)
    network = TResNet("m", with_cp=with_cp).double().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for norm in network.norms():
            norm.weight.uniform_(0.1, 1)
            norm.bias.normal_(std=0.1)
    plain = TResNet("m", norm="batchnorm").double()
    plain.load_state_dict(network.state_dict())
    # Pixels enough for the first three stages to go without their outputs, and the last to keep them.
    x = torch.rand(4, 3, 224, 224).double().to(memory_format=torch.channels_last)
    for ours, theirs in zip(step(network, x)[1:], step(plain, x)[1:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a - b).abs().max() <= 1e-10 * b.abs().max()


def test_stochastic_depth_is_the_same_in_both_forms():
    network = lively(drop_path_rate=0.5)
    plain = twin(network, norm="batchnorm", drop_path_rate=0.5)
    x = torch.rand(4, 3, 64, 64).double()
    results = []
    for each in (network, plain):
        torch.manual_seed(3)
        results.append(step(each, x))
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert not torch.equal(network(x)[-1], network(x)[-1])
    network.eval()
    assert torch.equal(network(x)[-1], network(x)[-1])


@pytest.mark.parametrize("norm", ["inplace", "batchnorm", "sync"])
@pytest.mark.parametrize("with_cp", [True, 1, 2, (0, 5, 1, 0)])
def test_activation_checkpointing_changes_nothing(norm, with_cp):
    network = lively(norm=norm, drop_path_rate=0.3, layers=(2, 1, 3, 2))
    checkpointed = twin(network, norm=norm, with_cp=with_cp, drop_path_rate=0.3, layers=(2, 1, 3, 2))
    x = torch.rand(4, 3, 64, 64).double()
    results = []
    for each in (network, checkpointed):
        torch.manual_seed(3)
        results.append(step(each, x))
    for ours, theirs in zip(*results, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)


def test_frozen_stages_have_no_gradient_and_keep_their_statistics():
    network = lively(frozen_stages=2)
    before = copy.deepcopy(network.state_dict())
    network.train()
    network(torch.rand(2, 3, 64, 64).double())[-1].sum().backward()
    for name, parameter in network.named_parameters():
        frozen = name.startswith(("stem", "layer1", "layer2"))
        assert (parameter.grad is None) == frozen, name
    for name, value in network.state_dict().items():
        moved = "running" in name and name.startswith(("layer3", "layer4"))
        if "running" in name:
            assert torch.equal(value, before[name]) != moved, name


def test_norm_eval_keeps_every_statistic():
    network = TResNet(**SMALL, norm_eval=True).train()
    before = copy.deepcopy(network.state_dict())
    network(torch.rand(2, 3, 64, 64))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(not norm.training for norm in network.norms())
    assert network.training


@pytest.mark.parametrize("convert", [nn.SyncBatchNorm.convert_sync_batchnorm, "mmengine"])
def test_conversion_to_synchronised_batch_norm_is_refused(convert):
    if convert == "mmengine":
        from mmengine.model import convert_sync_batchnorm as convert
    with pytest.raises(UserError, match="norm='sync'"):
        convert(nn.Sequential(TResNet(**SMALL)))


def test_mmengines_search_for_synchronised_norms_prints_nothing(monkeypatch):
    """As it does with every model of one process; it warned with the text of each stage."""
    network = TResNet(**SMALL)
    before = dict(network.named_modules())
    told = []
    monkeypatch.setattr("mmengine.model.utils.print_log", lambda text, **_: told.append(text))
    same = revert_sync_batchnorm(nn.Sequential(network))[0]
    assert same is network
    assert dict(same.named_modules()) == before
    assert not told


def test_deep_copies_and_pickles_are_independent():
    network = TResNet(**SMALL)
    twin_network = pickle.loads(pickle.dumps(copy.deepcopy(network)))
    with torch.no_grad():
        network.stem.conv.weight.zero_()
    assert twin_network.stem.conv.weight.abs().sum() > 0
    twin_network(torch.rand(1, 3, 64, 64))[-1].sum().backward()


def test_runs_in_channels_last_and_keeps_the_layout():
    network = TResNet(**SMALL).eval().to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        (feature,) = network(x)[-1:]
        plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)(x.contiguous())[-1]
    assert feature.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(feature, plain, rtol=1e-4, atol=1e-5)


def test_runs_under_autocast_with_gradients_as_good_as_the_plain_ones():
    network = lively().float()
    x = torch.rand(8, 3, 64, 64)
    grads = [
        torch.cat([gradient.flatten() for gradient in step(twin(network, norm=norm), x, **autocast)[1]])
        for norm, autocast in (
            ("batchnorm", {}),
            ("batchnorm", {"dtype": torch.bfloat16}),
            ("inplace", {"dtype": torch.bfloat16}),
        )
    ]
    exact, plain, inplace = grads
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(inplace, exact, dim=0) > similarity(plain, exact, dim=0) - 0.01
    assert similarity(inplace, exact, dim=0) > 0.95


@pytest.mark.slow
def test_compiles_in_evaluation_mode_without_a_graph_break():
    network = TResNet(layers=(1, 1, 1, 1), width=0.25).eval()
    x = torch.rand(1, 3, 64, 64)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(x), network(x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_exports():
    network = TResNet(layers=(1, 1, 1, 1), width=0.25).eval()
    x = torch.rand(2, 3, 64, 64)
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    for a, b in zip(exported.module()(x[:1].repeat(3, 1, 1, 1)), network(x[:1].repeat(3, 1, 1, 1)), strict=True):
        torch.testing.assert_close(a, b)


def test_norms_are_ours_throughout():
    network = TResNet(**SMALL)
    assert all(isinstance(norm, ActivatedBatchNorm) for norm in network.norms())
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms == network.norms()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_tool_that_folds_norms_and_drops_their_activations_is_refused(training, inside):
    fuse_conv_bn = pytest.importorskip("mmcv.cnn").fuse_conv_bn
    network = TResNet(layers=(1, 1, 1, 1), width=0.25)
    fused = fuse_conv_bn(nn.Sequential(network) if inside else network)
    with pytest.raises(UserError, match=r"norm of a Stem was replaced by Identity.*deployment\.fuse"):
        fused.train(training)(torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize("name", ["stem.norm", "layer1.0.norm1", "layer3.0.norm2"])
@pytest.mark.parametrize("other", [nn.Identity(), nn.SyncBatchNorm(16), nn.BatchNorm2d(16), nn.GroupNorm(1, 16)])
@torch.no_grad()
def test_replacing_a_norm_by_one_without_activation_is_refused(name, other):
    network = TResNet(layers=(1, 1, 1, 1), width=0.25).eval()
    place, last = name.rsplit(".", 1)
    network.get_submodule(place)._modules[last] = other
    with pytest.raises(UserError, match=f"{last} of a .* was replaced by {type(other).__name__}"):
        network(torch.rand(2, 3, 64, 64))


def test_a_norm_may_be_replaced_by_a_norm_with_activation():
    network, groups = TResNet(layers=(1, 1, 1, 1), width=0.25), nn.GroupNorm(4, 16)
    network.layer1[0].norm1 = nn.Sequential(groups, nn.LeakyReLU(0.01))
    network(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    assert groups.weight.grad.abs().sum() > 0
    assert network.plain_blocks() == {"layer1.0": "norm1 is of class torch.nn.modules.container.Sequential"}
