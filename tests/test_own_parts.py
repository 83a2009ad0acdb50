"""Each example of docs/extending/ can be trained, scored, loaded, used and exported."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import torch
from running.small_data import CLASSES, DIGITS, ROOT, call, make_small_data, options, refused

from tresnet_downstream import load_model, registry
from tresnet_downstream.cli.options import import_file
from tresnet_downstream.evaluation import read_run
from tresnet_downstream.formats import FORMATS

_EXAMPLE = re.compile(
    r"```python\n# (own_\w+\.py)\n(.+?)```\n"
    r"```\ntresnet train CONFIG --import \1 \\\n    --cfg-options (.+?)\n```",
    re.DOTALL,
)
_PARTS = ("head", "backbone", "loss", "data_set", "annotation_format", "metric", "transform", "optimiser")
EXAMPLES = {
    name: (text, shlex.split(changes.replace("\\\n", " ")))
    for part in _PARTS
    for name, text, changes in _EXAMPLE.findall((ROOT / f"docs/extending/{part}.md").read_text())
}
# Which of their types a checkpoint names, where scoring and prediction build them again.
SCORED = {
    "own_head.py": "MaxPoolHead",
    "own_backbone.py": "OneStage",
    "own_data.py": "TextFileDataset",
    "own_metric.py": "HammingLoss",
    "own_transform.py": "FewerColours",
}
LOADED = ("own_head.py", "own_backbone.py", "own_transform.py")
TOGETHER = ("own_head.py", "own_backbone.py", "own_data.py", "own_metric.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small pictures with COCO files, and the same labels as lines of text."""
    folder = make_small_data(tmp_path_factory.mktemp("own") / "data")
    for split in ("train", "val"):
        content = json.loads((folder / f"{split}.json").read_text())
        lines = {image["id"]: [image["file_name"]] for image in content["images"]}
        for annotation in content["annotations"]:
            lines[annotation["image_id"]].append(CLASSES[annotation["category_id"] - 1])
        for suffix in ("txt", "lines"):
            (folder / f"{split}.{suffix}").write_text("\n".join(" ".join(line) for line in lines.values()))
    return folder


@pytest.fixture(autouse=True)
def _forgotten():
    """The parts of one test are unknown to the next."""
    registries = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    before, modules, path = [dict(each.module_dict) for each in registries], set(sys.modules), list(sys.path)
    yield
    _forget(before, modules)
    sys.path[:] = path


def _forget(before=None, modules=()):
    registries = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    for number, each in enumerate(registries):
        names = set(before[number]) if before else set()
        for name in [n for n, c in each.module_dict.items() if n not in names and c.__module__.startswith("own_")]:
            del each.module_dict[name]
    FORMATS.pop(".lines", None)
    for name in [name for name in sys.modules if name.startswith("own_") and name not in modules]:
        del sys.modules[name]


def import_options(folder, names):
    for name in names:
        (folder / name).write_text(EXAMPLES[name][0])
    return [argument for name in names for argument in ("--import", folder / name)]


def training_options(data, names):
    """Those of a small training, without what another backbone or head does not have, and the examples' own."""
    lines = {"train_annotations": "train.txt", "val_annotations": "val.txt"} if "own_data.py" in names else {}
    kept = [each for each in options(data, max_epochs=1, **lines) if not each.startswith("model.")]
    small = ["model.backbone.layers=(1,1,1,1)", "model.backbone.width=0.25"] if "own_backbone.py" not in names else []
    head = ["model.head.num_classes=None"] if "own_head.py" not in names else []
    return [*kept, *small, *head, *(change for name in names for change in EXAMPLES[name][1])]


def validation_options(data, names):
    suffixes = {"own_data.py": "txt", "own_format.py": "lines"}
    file = f"val.{next((suffix for name, suffix in suffixes.items() if name in names), 'json')}"
    return ["--cfg-options", f"data_root={data}", f"val_annotations={file}", "val_images=pictures", "num_workers=0"]


def trained(data, folder, names):
    imported = import_options(folder, names)
    arguments = [DIGITS, *imported, "--work-dir", folder / "run", *training_options(data, names)]
    status, out, err = call("train_multilabel", arguments)
    assert (status, err) == (0, ""), err
    return imported, folder / "run/best.pth", out


def test_the_pages_have_an_example_of_each_part():
    parts = ("head", "backbone", "loss", "data", "format", "metric", "transform", "optimiser")
    assert list(EXAMPLES) == [f"own_{part}.py" for part in parts]


@pytest.mark.parametrize("names", [*((name,) for name in EXAMPLES), TOGETHER], ids=lambda names: "+".join(names))
def test_own_parts_train_and_are_scored_loaded_and_used_from_the_checkpoint(data, tmp_path, names):
    imported, best, out = trained(data, tmp_path, names)
    score = torch.load(best, weights_only=True)["score"]
    _forget()
    arguments = [best, *imported, "--work-dir", tmp_path / "scored", *validation_options(data, names)]
    status, printed, err = call("test_multilabel", arguments)
    assert (status, err) == (0, ""), err
    written = json.loads((tmp_path / "scored/scores.json").read_text())
    assert written["headline"]["mAP"] == pytest.approx(score[f"{score['weights']}/mAP"], abs=1e-6)
    if "own_metric.py" in names:
        better = min(score["raw/hamming"], score["averaged/hamming"])
        assert written["run"]["metrics"] == {"hamming": pytest.approx(better)}
        assert score[f"{score['weights']}/hamming"] == better
        assert f"hamming {better:.2f}" in printed
        assert f"hamming: raw {score['raw/hamming']:.2f}, averaged {score['averaged/hamming']:.2f}" in out
    model, run = load_model(best), read_run(tmp_path / "scored")
    picture = data / "pictures" / run.images[0]
    assert run.classes == model.classes == tuple(sorted(CLASSES))
    status, printed, err = call("predict", [best, picture, *imported, "--threshold", 0])
    assert (status, err) == (0, "")
    assert all(name in printed for name in CLASSES)


@pytest.mark.parametrize("name", SCORED)
def test_without_the_import_each_tool_names_the_type_and_the_way(data, tmp_path, name):
    best = trained(data, tmp_path, [name])[1]
    _forget()
    words = ("best.pth", f"'{SCORED[name]}'", "import")
    refused("test_multilabel", [best, "--work-dir", tmp_path / "scored", *validation_options(data, [name])], *words)
    if name in LOADED:
        refused("predict", [best, data / "pictures"], *words)
        refused("export", [best, tmp_path / "model.onnx"], *words)
    else:
        load_model(best)


@pytest.mark.slow
@pytest.mark.parametrize("names", [*((name,) for name in EXAMPLES), TOGETHER], ids=lambda names: "+".join(names))
def test_own_parts_work_only_in_processes_that_import_the_file(data, tmp_path, names):
    imported = import_options(tmp_path, names)
    best = tmp_path / "run/best.pth"
    commands = {
        "train_multilabel": [DIGITS, *imported, "--work-dir", tmp_path / "run", *training_options(data, names)],
        "test_multilabel": [best, *imported, "--work-dir", tmp_path / "scored", *validation_options(data, names)],
        "predict": [best, data / "pictures", *imported],
        "export": [best, tmp_path / "model.onnx", *imported],
    }
    for tool, arguments in commands.items():
        command = [sys.executable, ROOT / f"tools/{tool}.py", *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, f"{tool}: {done.stderr}"
    assert (tmp_path / "model.onnx").is_file()


def refuses(data, folder, text, change, *words):
    (folder / "own_wrong.py").write_text(text)
    arguments = [DIGITS, "--import", folder / "own_wrong.py", "--work-dir", folder / "run"]
    changes = [each for each in options(data, max_epochs=1) if not each.startswith("model.")]
    refused("train_multilabel", [*arguments, *changes, "model.head.num_classes=None", change], *words)


@pytest.mark.parametrize(
    ("line", "replacement", "words"),
    [
        ('        self.feature_info = [{"channels": width}]\n', "", ("OneStage needs the attribute `feature_info`",)),
        ("        self.out_indices = (0,)\n", "", ("OneStage needs the attribute `out_indices`",)),
        ("(self.stage(x),)", "self.stage(x)", ("OneStage returns a tensor", "tuple of feature maps")),
        (", out_indices=(-1,)", "", ("constructor of OneStage must take the argument `out_indices`",)),
        ("width=64,", "width,", ("OneStage in the config needs the argument 'width'",)),
    ],
)
def test_a_backbone_that_lacks_something_gives_an_error(data, tmp_path, line, replacement, words):
    text = EXAMPLES["own_backbone.py"][0]
    assert line in text
    refuses(data, tmp_path, text.replace(line, replacement), "model.backbone=dict(type='OneStage')", *words)


def test_a_head_that_takes_no_number_of_classes_gives_an_error(data, tmp_path):
    text = EXAMPLES["own_head.py"][0].replace("in_channels, num_classes):", "in_channels, labels=3):")
    change = "model.head=dict(type='MaxPoolHead')"
    refuses(data, tmp_path, text, change, "constructor of MaxPoolHead must take the argument `num_classes`")


def test_a_head_with_another_number_of_logits_gives_an_error(data, tmp_path):
    text = EXAMPLES["own_head.py"][0]
    layer = "nn.Linear(in_channels, num_classes)"
    assert layer in text
    change = "model.head=dict(type='MaxPoolHead')"
    words = ("MaxPoolHead returns a tensor of shape (8, 7)", "return logits of shape (8, 3)")
    refuses(data, tmp_path, text.replace(layer, "nn.Linear(in_channels, 7)"), change, *words)


def test_a_loss_that_is_not_one_number_gives_an_error(data, tmp_path):
    text = EXAMPLES["own_loss.py"][0].replace("weight=known)", "weight=known, reduction='none')")
    change = "model.loss=dict(type='SmoothedCrossEntropy')"
    refuses(data, tmp_path, text, change, "SmoothedCrossEntropy returns a tensor of shape (8, 3)", "one number")


def test_a_metric_alone_or_an_unknown_score_gives_an_error(data, tmp_path):
    text = EXAMPLES["own_metric.py"][0]
    refuses(data, tmp_path, text, "val_evaluator=dict(type='HammingLoss')", "val_evaluator", "MultilabelMetric")
    refuses(data, tmp_path, text, "default_hooks.checkpoint.rule=lower", "rule='lower'", "'less'")
    refuses(data, tmp_path, text, "default_hooks.checkpoint.save_best=hammig", "save_best='hammig'", "they give mAP")


@pytest.mark.parametrize("attribute", ["metainfo", "classes"])
def test_a_data_set_that_lacks_something_gives_an_error(data, tmp_path, attribute):
    text = EXAMPLES["own_data.py"][0].replace(f"self.{attribute} = ", "unused = ").replace("self.classes}", "()}")
    change = "train_dataloader.dataset.type=TextFileDataset"
    refuses(data, tmp_path, text, change, f"TextFileDataset has no `{attribute}`", "interfaces.py")


def test_absolute_paths_of_a_data_set_stay_out_of_checkpoints(data, tmp_path):
    imported = import_options(tmp_path, ["own_data.py"])
    where = {"train_annotations": data / "train.txt", "val_annotations": data / "val.txt"}
    where |= {"train_images": data / "pictures", "val_images": data / "pictures"}
    changes = [each for each in training_options(data, ["own_data.py"]) if each.partition("=")[0] not in where]
    changes = [*changes, *(f"{key}={path}" for key, path in where.items())]
    changes += [f"val_dataloader.dataset.image_folder={data / 'pictures'}"]
    status, _, err = call("train_multilabel", [DIGITS, *imported, "--work-dir", tmp_path / "run", *changes])
    assert (status, err) == (0, ""), err
    meta = torch.load(tmp_path / "run/best.pth", weights_only=True)["meta"]
    assert str(data) not in str(meta)
    assert meta["model"]["dataset"]["annotation_file"] == "$val_annotations"
    arguments = [tmp_path / "run/best.pth", "--work-dir", tmp_path / "scored"]
    refused("test_multilabel", [*arguments, *validation_options(data, ["own_data.py"])[:3]], "'image_folder'")


PLAIN_METRIC = """
import numpy as np
from mmengine.evaluator import BaseMetric

from tresnet_downstream.registry import METRICS


@METRICS.register_module()
class Pictures(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample["raw"].max().item() for sample in data_samples]

    def compute_metrics(self, results):
        return {"pictures": np.int64(len(results)), "peak": np.float32(max(results)), "place": "here"}
"""


def test_a_metric_of_mmengines_kind_may_give_any_names_and_values(data, tmp_path):
    (tmp_path / "own_pictures.py").write_text(PLAIN_METRIC)
    imported = ["--import", tmp_path / "own_pictures.py"]
    changes = ["val_evaluator=[dict(type='MultilabelMetric'),dict(type='Pictures',prefix='own')]"]
    changes = [*training_options(data, []), *changes, "default_hooks.checkpoint.save_best=own/peak"]
    status, out, err = call("train_multilabel", [DIGITS, *imported, "--work-dir", tmp_path / "run", *changes])
    assert (status, err) == (0, ""), err
    assert "pictures: own 11.00" in out
    best = torch.load(tmp_path / "run/best.pth", weights_only=True)
    assert (best["score"]["own/pictures"], best["score"]["own/place"]) == (11, "here")
    assert f"best val own/peak {best['score']['own/peak']:.2f}" in out
    arguments = [tmp_path / "run/best.pth", *imported, "--work-dir", tmp_path / "scored"]
    status, out, err = call("test_multilabel", [*arguments, *validation_options(data, [])])
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "scored/scores.json").read_text())["run"]["metrics"]["own/pictures"] == 11
    assert "own/pictures 11\n" in out


def test_a_file_is_imported_once(tmp_path):
    (name, path) = import_options(tmp_path, ["own_head.py"])
    assert name == "--import"
    import_file(str(path))
    import_file(str(path))
    assert registry.MODELS.get("MaxPoolHead") is not None
