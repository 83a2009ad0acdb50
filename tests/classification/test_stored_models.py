"""A description in a checkpoint only builds registered components. It runs, imports, opens and fetches nothing."""

import copy
import os
import sys

import mmengine.registry.registry
import pytest
import torch
from torch import nn

from tresnet_downstream import load_model, predict
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.classification.descriptions import _REFERENCES, Description, read_description, resized
from tresnet_downstream.classification.scoring_config import scoring_config
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS, MODELS
from tresnet_downstream.running.options import with_options

CLASSIFIER = {
    "type": "ImageClassifier",
    "backbone": {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25},
    "head": {"type": "LinearHead", "num_classes": 3},
    "multi_label": True,
}
PIPELINE = [{"type": "SquashResize", "size": 32}, {"type": "OneOf", "transforms": [{"type": "ToGray"}], "p": 0}]
WATCHED = ("import", "open", "os.", "subprocess.", "socket.", "urllib.", "shutil.", "tempfile.")
events: list | None = None


def _listen(event, arguments):
    if events is not None and event.startswith(WATCHED):
        events.append((event, *map(str, arguments[:1])))


sys.addaudithook(_listen)


@pytest.fixture(scope="module")
def weights():
    return ImageClassifier(CLASSIFIER["backbone"], CLASSIFIER["head"]).state_dict()


@pytest.fixture
def saved(weights, tmp_path):
    """Saves a checkpoint whose description was changed; gives its path."""

    def save(change=lambda described: None):
        described = copy.deepcopy({"classifier": CLASSIFIER, "pipeline": PIPELINE, "labels": {"threshold": 0.4}})
        change(described)
        meta = {"model": described, "dataset_meta": {"classes": ["a", "b", "c"]}}
        torch.save({"state_dict": weights, "meta": meta}, tmp_path / "m.pth")
        return tmp_path / "m.pth"

    return save


@pytest.fixture
def watched(monkeypatch):
    """Loads a checkpoint; gives what Python's audit saw besides the file itself, and calls of what leaves no trace."""

    def load(path, expected=None):
        global events
        called = []
        for module, name in ((os, "getcwd"), (os, "system"), (mmengine.registry.registry, "get_object_from_string")):
            monkeypatch.setattr(module, name, lambda *a, name=name, **_: called.append((name, *a)))
        events = []
        try:
            if expected is None:
                load_model(path)
            else:
                with pytest.raises(UserError, match=expected) as refusal:
                    load_model(path)
                assert "\n" not in str(refusal.value)
        finally:
            seen, events = events, None
            monkeypatch.undo()
        return called + [event for event in seen if event != ("open", str(path))]

    return load


NAMES = [
    "os.getcwd",
    "os.system",
    "subprocess.check_output",
    "shutil.rmtree",
    "builtins.open",
    "builtins.eval",
    "print",
    "this",
    "antigravity.fly",
    "wsgiref.simple_server.demo_app",
    "urllib.request.urlopen",
    "torch.load",
    "torch.hub.load",
    "mmengine.fileio.load",
    "mmengine.Config.fromfile",
    "mmdet.os.system",
    "turtledemo.LinearHead",
    "nms",
    "RoIPool",
    "NoSuchHead",
    "",
    3,
    None,
    ["TResNet"],
]
MODEL_PLACES = {
    "classifier": lambda told, name: told["classifier"].update(type=name),
    "backbone": lambda told, name: told["classifier"]["backbone"].update(type=name),
    "head": lambda told, name: told["classifier"]["head"].update(type=name),
    "preprocessor": lambda told, name: told["classifier"].update(data_preprocessor={"type": name}),
    "argument": lambda told, name: told["classifier"]["head"].update(num_groups=[{"type": name, "path": "x"}]),
    "step": lambda told, name: told["pipeline"][0].update(type=name),
    "step within": lambda told, name: told["pipeline"][1]["transforms"][0].update(type=name),
    "argument of a step": lambda told, name: told["pipeline"][0].update(size={"type": name}),
}
SCOPES = ["antigravity", "wsgiref", "os", 3]
OF_FILES = [
    {"type": "Lambda", "image": "os.getcwd"},
    {"type": "TextImage", "font_path": "/etc/hostname"},
    {"type": "FDA", "reference_images": ["/etc/hostname"]},
    {"type": "HistogramMatching", "reference_images": ["/etc/hostname"]},
    {"type": "PixelDistributionAdaptation", "reference_images": ["/etc/hostname"]},
    {"type": "TemplateTransform", "templates": ["/etc/hostname"]},
    {"type": "Compose", "transforms": [{"type": "Lambda"}]},
    {"type": "BasicTransform.__class__"},
    {"type": "load"},
    {"type": "from_dict"},
    {"type": "LoadImageFromFile"},
]
TIMM = [
    "hf-hub:someone/something",
    "hf_hub:someone/something",
    "local-dir:/etc",
    "https://example.org/a",
    "/etc/passwd",
]
ODD = [
    lambda told: told.update(classifier="os.getcwd"),
    lambda told: told.update(classifier=["ImageClassifier"]),
    lambda told: told.update(pipeline="SquashResize"),
    lambda told: told.update(pipeline=["SquashResize"]),
    lambda told: told["classifier"].update(head="LinearHead"),
    lambda told: told["classifier"].update(backbone=None),
    lambda told: told["classifier"].pop("type"),
    lambda told: told["classifier"]["backbone"].pop("type"),
    lambda told: told["classifier"].update(type="LinearHead"),
    lambda told: told["classifier"].update(custom_imports={"imports": ["antigravity"]}),
    lambda told: told["classifier"]["head"].update(num_classes="os.getcwd()"),
    lambda told: told["classifier"]["head"].update(num_classes=4),
    lambda told: told["classifier"]["backbone"].update(width="__import__('os').getcwd()"),
    lambda told: told["classifier"]["backbone"].update(layers=7),
    lambda told: told["pipeline"][0].update(size="__import__('os').getcwd()"),
]


def cases():
    for name in NAMES:
        for place, put in MODEL_PLACES.items():
            yield f"{place}: {name!r}", lambda told, put=put, name=name: put(told, name)
    for scope in SCOPES:
        yield f"scope: {scope}", lambda told, scope=scope: told["classifier"]["head"].update(_scope_=scope)
    for step in OF_FILES:
        yield f"step: {step}", lambda told, step=step: told["pipeline"].append(step)
    for name in TIMM:
        network = {"type": "TimmNetwork", "model": name}
        yield f"timm: {name}", lambda told, network=network: told["classifier"].update(backbone=network)
    for number, change in enumerate(ODD):
        yield f"odd: {number}", change


CASES = dict(cases())


def test_the_hostile_cases_are_many():
    assert len(CASES) > 200


@pytest.mark.parametrize("part", range(8))
def test_a_stored_config_runs_imports_opens_and_fetches_nothing(part, saved, watched):
    load_model(saved())  # what torch and timm import at a first call
    load_model(saved(lambda told: told["classifier"].update(backbone={"type": "TResNet", **SMALL})))
    with pytest.raises(UserError):
        load_model(
            saved(lambda told: told["classifier"].update(backbone={"type": "TimmNetwork", "model": "resnet10t"}))
        )
    for name, change in list(CASES.items())[part::8]:
        seen = watched(saved(change), r"m\.pth|pipeline|timm|model=|num_classes|layers|variant|width")
        assert seen == [], name


SMALL = {"layers": (1, 1, 1, 1), "width": 0.25}
STARTS = [
    lambda told, start: told["classifier"].update(init_cfg=start),
    lambda told, start: told["classifier"]["backbone"].update(init_cfg=start),
    lambda told, start: told["classifier"]["backbone"].update(pretrained=start["checkpoint"]),
    lambda told, start: told["classifier"]["head"].update(init_cfg=[start]),
    lambda told, start: told["classifier"].update(loss={"type": "AsymmetricLoss"}, classes=["z"]),
    lambda told, start: told.update(custom_imports={"imports": ["antigravity"]}, load_from=start["checkpoint"]),
]


@pytest.mark.parametrize("change", STARTS)
@pytest.mark.parametrize("source", ["https://example.org/w.pth", "/etc/hostname", "tresnet://m_in1k_448"])
def test_what_training_started_from_is_not_followed(change, source, saved, watched):
    load_model(saved())
    assert watched(saved(lambda told: change(told, {"type": "Pretrained", "checkpoint": source}))) == []
    assert load_model(saved()).classes == ("a", "b", "c")


def test_a_part_that_is_not_registered_is_named_with_the_way_to_import_it(saved):
    path = saved(lambda told: told["classifier"]["head"].update(type="OwnHead"))
    with pytest.raises(
        UserError, match=r"m\.pth: names the component 'OwnHead', which is not registered; import the Python file"
    ):
        load_model(path)


def test_a_registered_head_with_numbers_that_no_file_has_is_built_with_them(weights, tmp_path, monkeypatch):
    class OwnHead(nn.Module):
        def __init__(self, in_channels, num_classes, factor):
            super().__init__()
            self.fc = nn.Linear(in_channels, num_classes)
            self.factors = factor * torch.arange(num_classes)  # neither parameter nor buffer

        def forward(self, features):
            return self.fc(features.mean((2, 3))) * self.factors

    monkeypatch.setitem(MODELS.module_dict, "OwnHead", OwnHead)
    classifier = {**CLASSIFIER, "head": {"type": "OwnHead", "num_classes": 3, "factor": 2}}
    meta = {"model": {"classifier": classifier, "pipeline": PIPELINE}, "dataset_meta": {"classes": ["a", "b", "c"]}}
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "own.pth")
    model = load_model(tmp_path / "own.pth")
    assert model.head.factors.tolist() == [0, 2, 4]
    picture = torch.zeros(40, 50, 3, dtype=torch.uint8).numpy()
    assert predict(model, picture)[0, 0] == 0.5


def test_descriptions_in_older_checkpoints_are_read(tmp_path):
    backbone = {**CLASSIFIER["backbone"], "slopes": (0.05, 0.02)}
    head = {"type": "MLDecoderHead", "embed_dim": 16, "num_heads": 2, "feedforward_dim": 8}
    model = ImageClassifier(backbone, {**head, "num_classes": 3})
    told = {"backbone": {"type": "TResNet", "slopes": (0.05, 0.02)}, "head": {"num_heads": 2}}
    meta = {"model": {**told, "multi_label": False, "pipeline": PIPELINE}, "dataset_meta": {"classes": ["a", "b", "c"]}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, tmp_path / "older.pth")
    loaded = load_model(tmp_path / "older.pth")
    assert loaded.backbone.variant.slopes == (0.05, 0.02)
    assert loaded.head.decoder.multihead_attn.num_heads == 2
    assert (loaded.multi_label, loaded.pipeline, loaded.classes) == (False, tuple(PIPELINE), ("a", "b", "c"))


@pytest.mark.parametrize("slopes", ["ab", ["a", 0.1], {"stem": 1}, 3])
def test_slopes_of_an_older_checkpoint_that_are_no_numbers_are_refused(weights, tmp_path, slopes):
    torch.save({"state_dict": weights, "meta": {"model": {"backbone": {"slopes": slopes}}}}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"m\.pth: has slopes=.*; give two numbers"):
        load_model(tmp_path / "m.pth")


def test_odd_values_beside_the_weights_cause_no_traceback(weights, tmp_path):
    torch.save({"state_dict": weights, "score": {"weights": [1]}}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"m\.pth: has no \[1\] weights"):
        load_model(tmp_path / "m.pth")
    torch.save({"state_dict": weights, "idx_to_class": {None: "a", "²": "b", 3: "c"}}, tmp_path / "m.pth")
    assert load_model(tmp_path / "m.pth").classes == ("a", "b", "c")


def test_keys_that_a_stored_data_set_may_refer_to_are_those_of_every_scoring_config():
    described = Description({"type": "ImageClassifier"}, ({"type": "SquashResize", "size": 32},))
    assert set(_REFERENCES) <= scoring_config(described, "m.pth").keys()


def test_another_size_goes_into_the_stored_pipeline():
    stored = [{"type": "SmallestMaxSize", "max_size": 40}, {"type": "CenterCrop", "height": 32, "width": 32}]
    stored.append({"type": "ToGray", "p": 0.0})
    again = resized(stored, 24)
    assert again[1] == {"type": "CenterCrop", "height": 24, "width": 24}
    assert (again[0], again[2]) == (stored[0], stored[2])
    assert build_pipeline(again)(image=torch.zeros(64, 64, 3, dtype=torch.uint8).numpy())["image"].shape == (24, 24, 3)
    assert resized([{"type": "SquashResize", "size": [32, 32]}], 8)[0]["size"] == [8, 8]


def test_the_config_of_a_checkpoint_takes_options(saved):
    path = saved()
    description = read_description(path, torch.load(path, weights_only=True))
    options = ["image_size=64", "batch_size=4", "model.backbone.with_cp=True"]
    config = with_options(scoring_config(description, path), options)
    assert config.val_dataloader.dataset.pipeline[0] == {"type": "SquashResize", "size": 64}
    assert (config.val_dataloader.batch_size, config.val_evaluator.threshold, config.val_evaluator.top_k) == (4, 0.4, 3)
    assert config.model.backbone.with_cp is True
    with pytest.raises(UserError, match=r"m\.pth has no key 'imagesize'"):
        with_options(scoring_config(description, path), ["imagesize=64"])


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("dataset", {"type": "BaseDataset", "ann_file": "a.json"}),
        ("dataset", {"type": "MultiLabelDataset", "annotation_file": "a.json", "image_folder": "."}),
        ("dataset", {"type": "ConcatDataset", "datasets": [{"type": "MultiLabelDataset"}]}),
        ("dataset", {"type": "antigravity.Own"}),
        ("metrics", [{"type": "DumpResults", "out_file_path": "a.pkl"}]),
        ("metrics", [{"type": "MultilabelMetric"}]),
    ],
)
def test_data_sets_and_metrics_of_a_checkpoint_are_only_the_users_own(saved, key, part):
    path = saved(lambda described: described.update({key: part}))
    load_model(path)  # needs neither
    description = read_description(path, torch.load(path, weights_only=True))
    with pytest.raises(UserError, match=r"m\.pth: names ") as refusal:
        scoring_config(description, path)
    assert "\n" not in str(refusal.value)
    assert "antigravity" not in sys.modules


def test_paths_in_a_stored_data_set_are_left_out(saved, monkeypatch):
    class OwnData:
        pass

    monkeypatch.setitem(DATASETS.module_dict, "OwnData", OwnData)
    part = {"type": "OwnData", "file": "/etc/passwd", "other": "../../x", "inner": [{"file": "/a"}], "names": "a;b"}
    path = saved(lambda described: described.update(dataset=part))
    config = scoring_config(read_description(path, torch.load(path, weights_only=True)), path)
    assert config.val_dataloader.dataset.to_dict() == {"type": "OwnData", "inner": [{}], "names": "a;b"}


@pytest.mark.parametrize("part", [[1], {"file": "a"}, "text"])
def test_a_stored_data_set_that_is_no_config_is_refused(saved, part):
    path = saved(lambda described: described.update(dataset=part))
    with pytest.raises(UserError, match=r"m\.pth: describes its validation by"):
        read_description(path, torch.load(path, weights_only=True))


def test_a_checkpoint_without_description_needs_its_config(weights, tmp_path):
    path = tmp_path / "theirs.pth"
    with pytest.raises(UserError, match=r"theirs\.pth: does not describe its model"):
        scoring_config(read_description(path, {"state_dict": weights}), path)
