"""A description of a detector in a checkpoint may use MMDetection's components, and nothing that runs other code."""

import builtins
import copy
import importlib
import inspect
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from running.small_data import ROOT
from torch import nn

from tresnet_downstream.detection.hooks import describe_detector
from tresnet_downstream.detection.predict import detect, load_detector
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.stored_config import FOLLOWED, LIBRARIES, check_stored

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
# Of the 790 configs of MMDetection 3.3 that can be read here and have a model; 702 are taken.
REFUSED = {
    "BertModel, which fetches a language model": 52,
    "ATSSVLFusionHead, which fetches a language model": 21,
    "mmpretrain.ClsDataPreprocessor, which is not registered": 4,
    "mmpretrain.ResNet, which is not registered": 4,
    "KnowledgeDistillationSingleStageDetector, which runs a config file": 4,
    "Detectron2Wrapper, which imports another package": 3,
}
# Why 22 of the 702 are not built: packages that are not installed, mmcv's own synchronised norm outside of several
# processes, and two configs that do not fit MMDetection 3.3 itself.
NOT_BUILT = {
    "skimage is not installed": 2,
    "lap is not installed": 6,
    "motmetrics is not installed": 2,
    "Default process group has not been initialized": 10,
    "missing 1 required positional argument: 'num_classes'": 1,
    "unexpected keyword argument 'force_grad_on_level'": 1,
}


def described():
    """The descriptions that checkpoints of MMDetection's configs would hold, by the config's name."""
    for file in sorted(CONFIGS.rglob("*.py")):
        if "_base_" in file.parts:
            continue
        try:
            config = Config.fromfile(file)
        except (ImportError, FileNotFoundError):  # of mmpretrain, or of a file that MMDetection does not ship
            continue
        if "model" in config:
            yield str(file.relative_to(CONFIGS)), plain(describe_detector(config.model))


@pytest.mark.slow
def test_of_mmdetections_790_models_702_are_taken_and_the_rest_say_why(monkeypatch):
    init_default_scope("mmdet")
    taken, refused, not_built = 0, Counter(), Counter()
    linspace = torch.linspace
    # Rates of stochastic depth are read as numbers, which meta tensors do not have.
    monkeypatch.setattr(torch, "linspace", lambda *given, **named: linspace(*given, **{**named, "device": "cpu"}))
    for name, detector in described():
        try:
            check_stored("a.pth", detector, (MODELS, TASK_UTILS))
        except UserError as error:
            refused[re.sub(r".*component '(.*)', (which [^;]*);.*", r"\1, \2", str(error))] += 1
            continue
        taken += 1
        try:
            with torch.device("meta"):
                MODELS.build(ConfigDict(detector))
        except Exception as error:
            reason = next((reason for reason in NOT_BUILT if reason in str(error)), f"{name}: {error}")
            not_built[reason] += 1
    assert dict(refused) == REFUSED
    assert dict(not_built) == NOT_BUILT
    assert taken == 702


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["rtmdet/rtmdet_tiny_8xb32-300e_coco", "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco"]
)
def test_detectors_that_mmdetection_configures_predict_from_their_checkpoint_alone(name, boxes, tmp_path):
    init_default_scope("mmdet")
    config = Config.fromfile(CONFIGS / f"{name}.py")
    told = {
        "detector": plain(describe_detector(config.model)),
        "pipeline": plain(config.test_dataloader.dataset.pipeline),
    }
    model = MODELS.build(ConfigDict(copy.deepcopy(told["detector"])))
    meta = {"model": told, "dataset_meta": {"classes": tuple(map(str, range(80)))}}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, tmp_path / "a.pth")
    found = next(detect(load_detector(tmp_path / "a.pth"), [boxes / "pictures" / "val_01.png"]))
    assert not found.error
    assert found.boxes.shape[1:] == (4,)


BASES = {name: load_config(ROOT / "configs" / f"{name}_tresnet_m.py") for name in ("mask_rcnn",)}
TYPES = (
    *("os.system", "subprocess.check_output", "builtins.eval", "print", "evil", "evil.run", "evil.Part"),
    *("mmdet.os.system", "torch.hub.load", "mmengine.Config", "BertModel", "Detectron2Wrapper", "Albu"),
    *("CameraMotionCompensation", "mmdet.AppearanceFreeLink", "InferencerLoader", "", None, 7, ["ResNet"]),
    "__import__('os').mkdir('made')",
)
PARTS = ("norm_cfg", "act_cfg", "conv_cfg", "plugins", "upsample_cfg", "dcn", "loss_extra", "nms", "roi_layer")


def typed(node, place=()):
    """The places of all parts that have a type."""
    if isinstance(node, dict):
        if "type" in node:
            yield place
        for key, value in node.items():
            yield from typed(value, (*place, key))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from typed(value, (*place, number))


def at(node, place):
    for key in place:
        node = node[key]
    return node


def lists(node):
    """The same in dicts and lists, which can be changed."""
    if isinstance(node, dict):
        return {key: lists(value) for key, value in node.items()}
    return [lists(value) for value in node] if isinstance(node, list | tuple) else node


def hostile():
    """Descriptions of detectors that would import, open, fetch, call or evaluate something."""
    for name, config in BASES.items():
        pipeline = [step for step in config.test_dataloader.dataset.pipeline if not step["type"].startswith("Load")]
        told = lists({"detector": plain(describe_detector(config.model)), "pipeline": plain(pipeline)})
        places = list(typed(told))
        for number, place in enumerate(places):
            for payload in TYPES:
                changed = copy.deepcopy(told)
                at(changed, place)["type"] = payload
                yield f"{name} {place} type={payload!r}", changed
            changed = copy.deepcopy(told)
            at(changed, place)["_scope_"] = "evil"
            yield f"{name} {place} _scope_", changed
            key = FOLLOWED[number % len(FOLLOWED)]
            for value in ("evil.py", {"type": "Pretrained", "checkpoint": "https://evil.example/a.pth"}):
                changed = copy.deepcopy(told)
                at(changed, place)[key] = value
                yield f"{name} {place} {key}={value!r}", changed
            for part in PARTS:
                changed = copy.deepcopy(told)
                inner = {"type": TYPES[number % len(TYPES)]}
                at(changed, place)[part] = [[{"cfg": inner}, inner]] if part == "plugins" else inner
                yield f"{name} {place} {part}", changed
        for key in FOLLOWED:
            changed = copy.deepcopy(told)
            changed["detector"]["backbone"][key] = ["evil.py"]
            yield f"{name} backbone.{key}", changed
        for model in ("hf-hub:evil/a", "HF_hub:evil/a", "local-dir:evil", "https://evil.example/a"):
            changed = copy.deepcopy(told)
            changed["detector"]["backbone"] = {"type": "TimmNetwork", "model": model}
            yield f"{name} timm {model}", changed
        # In the place of another kind, where MMEngine would import a module of that name.
        changed = copy.deepcopy(told)
        changed["detector"]["neck"] = {"type": "MaxIoUAssigner"}
        yield f"{name} misplaced", changed
        looped = copy.deepcopy(told)
        looped["detector"]["neck"]["loop"] = looped["detector"]
        yield f"{name} looped", looped


@pytest.mark.slow
def test_hostile_descriptions_are_refused_and_nothing_is_imported_opened_fetched_or_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil").mkdir()
    for file in ("evil/__init__.py", "evil/registry.py", "evil.py", "MaxIoUAssigner.py"):
        (tmp_path / file).write_text("import os\nos.mkdir('made')\n")
    checkpoint, seen = tmp_path / "odd.pth", []
    import_module, plain_open = importlib.import_module, builtins.open

    def watched_import(name, package=None):
        if name not in sys.modules:
            seen.append(name)
        return import_module(name, package)

    def watched_open(file, *given, **named):
        if str(file) != str(checkpoint):
            seen.append(file)
        return plain_open(file, *given, **named)

    load_detector_once(tmp_path / "first.pth")  # brings what reading a checkpoint imports
    monkeypatch.setattr(importlib, "import_module", watched_import)
    for module in ("mmengine.registry.registry", "mmengine.utils.misc"):
        monkeypatch.setattr(sys.modules[module], "import_module", watched_import)
    monkeypatch.setattr(builtins, "open", watched_open)
    for place, name in (
        *((urllib.request, "urlopen"), (subprocess, "Popen"), (os, "system"), (socket, "create_connection")),
        (torch.hub, "load_state_dict_from_url"),
    ):
        monkeypatch.setattr(place, name, lambda *given, **named: seen.append(given))
    count = 0
    for name, told in hostile():
        content = {"meta": {"model": told, "dataset_meta": {"classes": ("a",)}}, "state_dict": {"a": torch.zeros(1)}}
        torch.save(content, checkpoint)
        seen.clear()
        with pytest.raises(UserError, match=r"odd\.pth: "):
            load_detector(checkpoint)
        assert not seen, name
        assert "evil" not in sys.modules, name
        count += 1
    assert not (tmp_path / "made").exists()
    assert count > 500


@pytest.mark.parametrize("number", [2**31, -(2**40)])
def test_numbers_that_no_component_could_count_to_are_refused(number):
    """MMDetection's anchor generator makes a list of so many scales."""
    anchors = {"type": "AnchorGenerator", "strides": [8], "ratios": [1.0], "scales_per_octave": number}
    with pytest.raises(UserError, match=rf"a\.pth: sets scales_per_octave={number}, above the limit of 1,048,576"):
        check_stored("a.pth", {"head": {"anchors": [anchors]}}, (TASK_UTILS,))
    check_stored("a.pth", {**anchors, "scales_per_octave": 2**20}, (TASK_UTILS,))


def test_an_error_names_the_description_if_its_detector_cannot_be_run(tmp_path):
    init_default_scope("mmdet")
    model = nn.Linear(1, 1)
    model.pipeline, model.described_by = [], tmp_path / "a.pth"  # nothing that gives inputs
    with pytest.raises(UserError, match=r"a\.pth: the detector that it describes cannot be run \("):
        list(detect(model, np.zeros((8, 8, 3), np.uint8)))
    model.described_by = None  # of the user's own config
    with pytest.raises(KeyError):
        list(detect(model, np.zeros((8, 8, 3), np.uint8)))


def load_detector_once(path):
    torch.save({"meta": {"model": {"detector": {"type": "none"}}}, "state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(UserError):
        load_detector(path)


def source_of(kind):
    """The source of a class of MMDetection's or mmcv's, but for what starts weights."""
    if kind.__module__.split(".")[0] not in ("mmcv", "mmdet"):
        return ""
    source = re.sub(r"    def init_weights\(.*?(?=\n    def |\Z)", "", inspect.getsource(kind), flags=re.DOTALL)
    return source.replace(".eval()", "")


@pytest.mark.slow
def test_no_part_that_is_taken_evaluates_opens_or_fetches():
    """The list of refused classes covers the versions that are installed; what starts weights is never called."""
    does = re.compile(
        r"\b(eval|exec|open|__import__|import_module|from_pretrained|load_checkpoint|fromfile)\(|torch\.load|subprocess"
    )
    # LAD loads its teacher from an argument that is refused, and skips the constructor of its base class.
    known = {"LAD", "KnowledgeDistillationSingleStageDetector"}
    found = set()
    for registry in (MODELS, TASK_UTILS, TRANSFORMS):
        while registry is not None:
            for name, component in registry.module_dict.items():
                if component.__module__.split(".")[0] not in LIBRARIES or not inspect.isclass(component):
                    continue
                try:
                    check_stored("a.pth", {"type": name}, (MODELS, TASK_UTILS, TRANSFORMS))
                except UserError:
                    continue
                found |= {base.__name__ for base in inspect.getmro(component) if does.search(source_of(base))}
            registry = registry.parent
    assert found <= known, found


@MODELS.register_module()
class OwnNeck(nn.Module):
    """A component of the caller's."""


def test_the_callers_own_components_are_taken_and_unknown_ones_say_how():
    check_stored("a.pth", {"type": "OwnNeck"}, (MODELS, TASK_UTILS))
    check_stored("a.pth", [{"neck": [{"type": "mmdet.OwnNeck"}]}], (MODELS, TASK_UTILS))
    with pytest.raises(UserError, match=r"'TheirNeck', which is not registered; import the Python file"):
        check_stored("a.pth", {"type": "TheirNeck"}, (MODELS, TASK_UTILS))
    with pytest.raises(UserError, match=r"'OwnNeck', which is not registered"):
        check_stored("a.pth", {"type": "OwnNeck"}, (TASK_UTILS,))


def test_a_registry_brings_its_own_package():
    """In a process that has imported nothing else, as when a classifier's checkpoint is read first."""
    program = (
        "from tresnet_downstream.registry import MODELS\n"
        "from tresnet_downstream.running.stored_config import check_stored\n"
        "check_stored('a.pth', {'type': 'ImageClassifier', 'backbone': {'type': 'TResNet'}}, (MODELS,))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_programs_that_the_standard_library_holds_are_refused_though_registered():
    registry = MODELS.__class__("part", scope="mmdet")
    registry.register_module("run", module=subprocess.check_output)
    with pytest.raises(UserError, match=r"'run', which is not known to be harmless"):
        check_stored("a.pth", {"type": "run"}, (registry,))
