"""load_model recognises the files of every release from the names and shapes of their tensors."""

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from golden_networks import _fill, golden, pictures, release_state_dict
from running.small_data import call
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights, resnet50

from tresnet_downstream import load_model, predict
from tresnet_downstream.backbones import VARIANTS, TResNet
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.classification.convert import convert
from tresnet_downstream.classification.recognition import NoNumbers
from tresnet_downstream.classification.weight_file import describe
from tresnet_downstream.classification.weight_file_reading import read_weight_file
from tresnet_downstream.deployment import fuse
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.catalogue import CATALOGUE, imagenet_classes
from tresnet_downstream.weights.formats import to_release, to_timm

SMALL = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
HEADS = {
    "linear": {"type": "LinearHead"},
    "bottleneck": {"type": "BottleneckHead", "bottleneck_channels": 6},
    "full": {"type": "MLDecoderHead", "num_groups": 7, "embed_dim": 16, "feedforward_dim": 8},
    "grouped": {"type": "MLDecoderHead", "num_groups": 3, "embed_dim": 16, "feedforward_dim": 8},
}


def small_model(head="linear", **backbone):
    model = ImageClassifier({**SMALL, **backbone}, {**HEADS[head], "num_classes": 7}).eval()
    for norm in model.backbone.norms():
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.running_mean, std=0.1)
    return model


@torch.no_grad()
def logits_of(model, size=64, dtype=torch.float32):
    return model(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype))


def relative(got, wanted):
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.slow
@pytest.mark.parametrize("release", ["official_tresnet_m", "ml_decoder_tresnet_m_80_full"])
def test_release_file_gives_the_published_logits(tmp_path, release):
    expected = golden(release)
    weights = {key: value.float() for key, value in release_state_dict(expected["keys"]).items()}
    names = {index: f"thing {index}" for index in range(80)}
    torch.save({"model": weights, "num_classes": 80, "idx_to_class": names}, tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth")
    assert (model.variant, model.classes[79], model.training) == ("m", "thing 79", False)
    images = pictures(expected["input"]["size"])
    wanted = torch.tensor(expected["eval"]["logits"], dtype=torch.float64)
    with torch.no_grad():
        assert relative(model(images.float()), wanted) <= 1e-5
        assert relative(model.double()(images), wanted) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tresnet_m", "tresnet_l", "tresnet_xl", "tresnet_v2_l"])
def test_timm_and_this_toolkit_exchange_weights_with_equal_logits(tmp_path, name):
    theirs = timm.create_model(name, num_classes=20).eval()
    # A third of the norm weights is negative, as golden/README.md fills them, and some are exactly zero.
    theirs.load_state_dict({key: torch.tensor(_fill(key, value.shape)) for key, value in theirs.state_dict().items()})
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    model = load_model(tmp_path / "a.safetensors")
    assert model.variant == name.removeprefix("tresnet_")
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert relative(model(images), theirs(images)) <= 1e-5
        convert(read_weight_file(tmp_path / "a.safetensors"), tmp_path / "back.pth", "timm")
        theirs.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
        assert relative(theirs(images), model(images)) <= 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_recognised_from_its_shapes(tmp_path, monkeypatch, variant):
    monkeypatch.setenv("TRESNET_MAX_EXPANSION", str(10**9))  # for weights of one stored number
    with torch.device("meta"), NoNumbers():
        layout = ImageClassifier({"type": "TResNet", "variant": variant}, {"type": "LinearHead", "num_classes": 5})
    # One number for all, spread out without memory: shapes are what counts.
    weights = {name: torch.zeros(()).expand(value.shape) for name, value in layout.state_dict().items()}
    torch.save({"model": to_release(weights)}, tmp_path / "a.pth")
    file = read_weight_file(tmp_path / "a.pth")
    assert (file.variant, file.head) == (variant, {"type": "LinearHead", "num_classes": 5})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("style", ["release", "timm", "tresnet"])
@pytest.mark.parametrize("blocks", [("basic", "basic", "bottleneck", "bottleneck"), ("bottleneck",) * 4])
def test_every_head_and_format_can_be_written_and_read(tmp_path, head, style, blocks):
    model = small_model(head, blocks=blocks)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    out = tmp_path / "b.pth"
    if style == "timm" and head == "bottleneck":
        with pytest.raises(UserError, match="timm has no BottleneckHead"):
            convert(read_weight_file(tmp_path / "a.pth"), out, style)
        return
    convert(read_weight_file(tmp_path / "a.pth"), out, style)
    again = load_model(out)
    assert again.variant == "custom"
    assert relative(logits_of(again), logits_of(model)) < 1e-5
    if style != "timm":
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [dict, lambda w: {"model": w}, lambda w: {"state_dict": w}, lambda w: {"state_dict_ema": w}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_read_from_every_checkpoint_structure(tmp_path, wrap, prefix, legacy):
    model = small_model()
    weights = {prefix + name: value for name, value in to_release(model.state_dict()).items()}
    torch.save(wrap(weights), tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(logits_of(load_model(tmp_path / "a.pth")), logits_of(model))


@pytest.mark.parametrize("prefix", ["", "detector."], ids=["detector", "joint"])
def test_detector_gives_its_backbone_with_pooled_features_and_a_notice(tmp_path, capsys, prefix):
    model = small_model()
    weights = {name: value for name, value in model.state_dict().items() if name.startswith("backbone.")}
    weights |= {"neck.conv.weight": torch.zeros(2), "bbox_head.cls.weight": torch.zeros(2)}
    weights = {prefix + name: value for name, value in weights.items()}
    torch.save({"state_dict": weights, "meta": {}}, tmp_path / "d.pth")
    loaded = load_model(tmp_path / "d.pth")
    assert "d.pth: is a detector; load_model loads its backbone only, and load_detector all" in capsys.readouterr().out
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), model.backbone(images)[-1].mean((2, 3)))
    assert loaded.classes == ()
    rows = dict(line.split(maxsplit=1) for line in describe(read_weight_file(tmp_path / "d.pth")).splitlines())
    assert (rows["detector"], rows["output"]) == ("only its backbone is described", "pooled features")
    status, out, err = call("weights", ["convert", tmp_path / "d.pth", tmp_path / "c.pth", "--to", "tresnet"])
    assert (status, err) == (0, "")
    assert (
        f"not converted, because they belong neither to the backbone nor to the head: {prefix}neck.conv.weight and 1"
        in out
    )


def test_model_without_a_head_predicts_no_probabilities(tmp_path, capsys):
    weights = {name: value for name, value in small_model().state_dict().items() if name.startswith("backbone.")}
    torch.save(weights, tmp_path / "backbone.pth")
    model = load_model(tmp_path / "backbone.pth")
    assert not capsys.readouterr().out
    for predictor in (model, fuse(model)):
        with pytest.raises(UserError, match="has no head, so it predicts no labels"):
            predict(predictor, np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_exported_file_is_named_as_such(tmp_path, suffix):
    (tmp_path / f"model{suffix}").write_bytes(b"\x08\x0a\x12\x07pytorch")
    with pytest.raises(UserError, match="is an exported model; give the weights that it was exported from"):
        load_model(tmp_path / f"model{suffix}")


def test_files_without_batch_counts_are_complete(tmp_path):
    weights = {name: value for name, value in small_model().state_dict().items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "a.pth")
    assert load_model(tmp_path / "a.pth").backbone.stem.norm.num_batches_tracked == 0


def test_slopes_are_the_usual_unless_given(tmp_path):
    torch.save(to_release(small_model(slopes=(1e-6, 1e-6)).state_dict()), tmp_path / "a.pth")
    assert load_model(tmp_path / "a.pth").backbone.variant.slopes == (1e-2, 1e-3)
    assert load_model(tmp_path / "a.pth", slopes=(1e-6, 1e-6)).backbone.variant.slopes == (1e-6, 1e-6)


def test_half_precision_in_the_file_becomes_float32(tmp_path):
    half = {
        name: value.half() if value.is_floating_point() else value for name, value in small_model().state_dict().items()
    }
    torch.save(half, tmp_path / "a.pth")
    assert {value.dtype for value in load_model(tmp_path / "a.pth").parameters()} == {torch.float32}


def test_imagenet_classes_are_torchvisions_and_given_to_1000_classes(tmp_path):
    assert list(imagenet_classes()) == ResNet50_Weights.DEFAULT.meta["categories"]
    model = ImageClassifier(SMALL, {"type": "LinearHead", "num_classes": 1000})
    torch.save({"model": to_release(model.state_dict())}, tmp_path / "a.pth")
    loaded = load_model(tmp_path / "a.pth")
    assert loaded.classes[0] == "tench"
    assert (loaded.multi_label, loaded.input_size, loaded.pipeline[0]["type"]) == (False, 224, "ResizeAndCrop")


def test_file_of_a_release_by_its_name_gets_the_catalogues_size(tmp_path, monkeypatch):
    monkeypatch.setenv("TRESNET_MAX_EXPANSION", str(10**9))
    with torch.device("meta"), NoNumbers():
        layout = ImageClassifier({"type": "TResNet", "variant": "xl"}, {"type": "LinearHead", "num_classes": 80})
    weights = {name: torch.zeros(()).expand(value.shape) for name, value in layout.state_dict().items()}
    torch.save({"model": to_release(weights)}, tmp_path / "MS_COCO_TResNet_xl_640_88.4.pth")
    file = read_weight_file(tmp_path / "MS_COCO_TResNet_xl_640_88.4.pth")
    assert (file.input_size, file.pipeline[0]["type"], file.multi_label) == (640, "SquashResize", True)


def refusal(path, **options):
    with pytest.raises(UserError) as error:
        load_model(path, **options)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_another_network_is_refused_with_the_nearest_and_three_names(tmp_path):
    torch.save(resnet50().state_dict(), tmp_path / "r.pth")
    message = refusal(tmp_path / "r.pth")
    assert "most similar one is TResNet" in message
    assert message.count(" is missing") + message.count(" is unknown") == 3
    assert "`network`" in message


def test_file_of_another_network_than_the_one_named_is_refused_without_calling_it_a_tresnet(tmp_path):
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    torch.save(timm.create_model("resnet18d").state_dict(), tmp_path / "r.pth")
    message = refusal(tmp_path / "r.pth", network="resnet10t")
    assert "the most similar one is resnet10t" in message


def test_description_of_a_network_of_timm_has_no_slopes(tmp_path):
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "r.pth")
    assert "slopes" not in describe(read_weight_file(tmp_path / "r.pth", network="resnet10t"))


def test_tresnet_with_differing_tensors_is_refused_with_three_names(tmp_path):
    weights = small_model().state_dict()
    del weights["backbone.layer1.0.conv2.weight"]
    weights["backbone.layer3.0.conv1.weight"] = torch.zeros(3, 3)
    weights["backbone.layer9.weight"] = torch.zeros(3)
    weights["backbone.layer2.0.odd"] = torch.zeros(3)
    torch.save(weights, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "the most similar one is TResNet" in message
    assert "4 names differ" in message
    for wrong in ("layer1.0.conv2.weight is missing", "layer2.0.odd is unknown", "layer3.0.conv1.weight is (3, 3)"):
        assert wrong in message


def test_variant_that_the_shapes_contradict_is_refused(tmp_path):
    torch.save(small_model().state_dict(), tmp_path / "a.pth")
    assert "not 'l'" in refusal(tmp_path / "a.pth", variant="l")
    assert "not one of m, l" in refusal(tmp_path / "a.pth", variant="huge")


def without(ending):
    return lambda weights: [weights.pop(name) for name in list(weights) if name.endswith(ending)]


def other(ending, tensor):
    return lambda weights: weights.update({name: tensor for name in weights if name.endswith(ending)})


@pytest.mark.parametrize(
    ("head", "change", "words"),
    [
        ("linear", without("layer2.0.conv1.bn.weight"), "layer2.0.norm1.weight is missing"),
        ("linear", without("layer2.0.conv1.bn.running_mean"), "layer2.0.norm1.running_mean is missing"),
        ("linear", without("layer2.0.conv1.conv.weight"), "layer2.0.conv1.weight is missing"),
        ("linear", other("layer2.0.conv1.bn.weight", -torch.ones(3)), "layer2.0.norm1.weight is (3,)"),
        ("linear", other("layer2.0.conv1.bn.weight", torch.tensor(-1.0)), "layer2.0.norm1.weight is ()"),
        ("linear", other("head.fc.weight", torch.tensor(1.0)), "its head is not a complete LinearHead"),
        ("grouped", other("query_embed.weight", torch.ones(3)), "its head is not a complete MLDecoderHead"),
        ("grouped", without("duplicate_pooling_bias"), "its head is not a complete MLDecoderHead"),
    ],
)
def test_tensors_that_are_missing_or_of_other_shapes_in_timms_style_are_named(tmp_path, head, change, words):
    weights = to_timm(small_model(head).state_dict())
    names, shapes = set(weights), {name: tensor.shape for name, tensor in weights.items()}
    weights["body.layer2.0.conv1.bn.weight"][0] *= -1
    change(weights)
    assert set(weights) != names or {name: tensor.shape for name, tensor in weights.items()} != shapes
    torch.save(weights, tmp_path / "a.pth")
    assert words in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_and_shown(tmp_path, value):
    weights = small_model().state_dict()
    weights["backbone.layer2.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(weights, tmp_path / "a.pth")
    assert "not finite, in backbone.layer2.0.conv1.weight" in refusal(tmp_path / "a.pth")
    file = read_weight_file(tmp_path / "a.pth")
    assert "not finite in backbone.layer2.0.conv1.weight" in describe(file)
    for to, out in (("tresnet", "b.pth"), ("release", "b.pth"), ("timm", "b.pth"), ("timm", "b.safetensors")):
        with pytest.raises(UserError, match=r"/a\.pth: backbone\.layer2\.0\.conv1\.weight has values that are NaN"):
            convert(file, tmp_path / out, to)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_state_dict_with_a_head_of_ones_own_is_refused_for_its_head(tmp_path):
    state_dict = {name: value for name, value in small_model().state_dict().items() if not name.startswith("head.")}
    head = torch.nn.Sequential(torch.nn.Linear(512, 8), torch.nn.Linear(8, 7))
    state_dict |= {f"head.layers.{name}": value for name, value in head.state_dict().items()}
    torch.save(state_dict, tmp_path / "own.pth")
    with pytest.raises(UserError, match=r"head is of another type.*head\.layers\.0\.bias is unknown.*load_state_dict"):
        load_model(tmp_path / "own.pth")


def test_an_unknown_format_is_named_whatever_the_suffix(tmp_path):
    torch.save(small_model().state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match="`to` keras: give timm, release or tresnet"):
        convert(read_weight_file(tmp_path / "a.pth"), tmp_path / "b.safetensors", "keras")


def test_description_is_about_ten_lines(tmp_path):
    torch.save({"model": to_timm(small_model("grouped").state_dict())}, tmp_path / "a.pth")
    lines = describe(read_weight_file(tmp_path / "a.pth")).splitlines()
    assert len(lines) <= 12
    assert any("MLDecoderHead, 3 groups" in line for line in lines)
    assert lines[-1].endswith("all finite")


@pytest.mark.parametrize("name", CATALOGUE)
def test_catalogue_entries_have_the_size_of_their_networks(name):
    entry = CATALOGUE[name]
    heads = {"linear": "LinearHead", "bottleneck": "BottleneckHead", "ml_decoder": "MLDecoderHead"}
    head = {"type": heads[entry.head], "num_classes": entry.num_classes}
    if entry.head == "ml_decoder":
        head["num_groups"] = 200 if entry.num_classes == 9605 else entry.num_classes
    with torch.device("meta"), NoNumbers():
        backbone = {"type": "TResNet", "variant": entry.variant}
        if entry.network:
            backbone = {"type": "TimmNetwork", "model": entry.network}
        model = ImageClassifier(backbone, head) if entry.num_classes else TResNet(entry.variant)
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert abs(size / 1e6 - entry.megabytes) < 1
    assert all(place.url.startswith(("https://", "hf://timm/")) for place in entry.places)


PEAK = """
import sys
from tresnet_downstream import load_model, predict
from tresnet_downstream.classification.transforms import build_pipeline
def peak():
    # Not getrusage: its peak begins with that of the process that started this one.
    return 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
before = peak()
load_model(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_loading_takes_less_than_twice_the_files_size(tmp_path, kind):
    model = ImageClassifier({"type": "TResNet", "variant": "l"}, {"type": "LinearHead", "num_classes": 80})
    path = tmp_path / f"a.{kind}"
    if kind == "pth":
        torch.save({"model": to_release(model.state_dict())}, path)
    else:
        save_file({name: value.contiguous() for name, value in to_timm(model.state_dict()).items()}, path)
    result = subprocess.run([sys.executable, "-c", PEAK, path], check=True, capture_output=True, text=True)
    assert path.stat().st_size / 2 < int(result.stdout) < 2 * path.stat().st_size
