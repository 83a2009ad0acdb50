"""Tools do not overwrite files: an equal result is replaced, and other files are renamed with a notice."""

import shutil

import pytest
from benchmark.tiny import register
from detection.small_boxes import CONFIG, flags
from evaluation.small_runs import detection_run, multilabel_run
from running.small_data import DIGITS, call, make_small_data, options, train

from tresnet_downstream.evaluation import read_run


@pytest.fixture(scope="module")
def inputs(boxes, trained_detector, tmp_path_factory):
    """What the tools read: two of each kind, whose results differ."""
    folder = tmp_path_factory.mktemp("inputs")
    data = make_small_data(folder / "data")
    train(data, folder / "trained")
    multilabel_run(folder / "runs/0", seed=0)
    multilabel_run(folder / "runs/1", seed=1)
    detection_run(folder / "detection/0")
    detection_run(folder / "detection/1", seed=1)
    return {"folder": folder, "data": data, "boxes": boxes, "detector": trained_detector[0]}


def checkpoint(inputs, number):
    return inputs["folder"] / "trained" / f"epoch_{number + 1}.pth"


def detector(inputs, number):
    return inputs["detector"] / f"epoch_{number + 1}.pth"


def score_multilabel(inputs, out, number):
    return ["test_multilabel", DIGITS, checkpoint(inputs, number), "--work-dir", out, *options(inputs["data"])]


def score_detection(inputs, out, number):
    return ["test_detection", CONFIG, detector(inputs, number), "--work-dir", out, *flags(inputs["boxes"])]


def report(kind):
    return lambda inputs, out, number: ["report", inputs["folder"] / kind / str(number), "--out", out, "--resamples", 0]


def thresholds(inputs, out, number):
    return ["thresholds", inputs["folder"] / f"runs/{number}", "--out", out / "thresholds.json"]


def predict(inputs, out, number):
    images = [inputs["data"] / f"pictures/val_0{place}.jpg" for place in (0, 1)]
    return ["predict", checkpoint(inputs, number), *images, "--out", out, "--device", "cpu"]


def detect(inputs, out, number):
    images = [inputs["boxes"] / f"pictures/val_0{place}.png" for place in (1, 2)]
    return ["predict", detector(inputs, number), *images, "--threshold", 0, "--out", out, "--device", "cpu"]


def export(suffix):
    return lambda inputs, out, number: ["export", checkpoint(inputs, number), out / f"model.{suffix}"]


def convert(kind, suffix):
    def arguments(inputs, out, number):
        return ["weights", "convert", checkpoint(inputs, number), out / f"model.{suffix}", "--to", kind]

    return arguments


def benchmark(inputs, out, number):
    small = ["--tasks", "inference", "--sizes", 64, "--batch-size", 1, "--repeats", 1, "--device", "cpu"]
    return ["benchmark", "networks", "tiny", *small, "--out", out]


def check_data(inputs, out, number):
    files = [
        "--annotations",
        inputs["data"] / ("train.json", "val.json")[number],
        "--images",
        inputs["data"] / "pictures",
    ]
    return ["check_data", *files, "--workers", 0, "--json", out / "findings.json"]


def explained(command):
    def arguments(inputs, out, number):
        name, *rest = command(inputs, out, number)
        return [name, "--explain", *rest]

    return arguments


COMMANDS = {
    "test_multilabel": score_multilabel,
    "test_multilabel, maps": explained(score_multilabel),
    "test_detection": score_detection,
    "report of a classifier": report("runs"),
    "report of a detector": report("detection"),
    "thresholds": thresholds,
    "predict, labels": predict,
    "predict, maps": explained(lambda *given: [*predict(*given), "--top-k", 2]),
    "predict, boxes": detect,
    "export to ONNX": export("onnx"),
    "export to OpenVINO": export("xml"),
    "convert to timm": convert("timm", "safetensors"),
    "convert to the release's": convert("release", "pth"),
    "benchmark": benchmark,
    "check_data": check_data,
}
# Commands that take more than a few seconds.
SLOW = {"test_detection", "export to ONNX", "export to OpenVINO", "benchmark"}


def some_slow(names):
    """The names as parameters; those of :data:`SLOW` are marked."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]


# A time is measured anew in each run; exporters number their nodes through the life of a process.
# What a command needs besides the set-up.
PACKAGES = {
    "export to ONNX": ("onnxscript", "onnxruntime"),
    "export to OpenVINO": ("openvino",),
    "predict, maps": ("pytorch_grad_cam",),
    "test_multilabel, maps": ("pytorch_grad_cam",),
}
NEVER_THE_SAME = {"benchmark", "export to ONNX", "export to OpenVINO"}


@pytest.fixture
def produce(inputs, tmp_path, monkeypatch):
    """Runs a command into ``tmp_path / "out"``, which must end well; gives what it says of files that were there."""
    register(monkeypatch)

    def run(name, number):
        for package in PACKAGES.get(name, ()):
            pytest.importorskip(package)
        tool, *arguments = COMMANDS[name](inputs, tmp_path / "out", number)
        status, _, err = call(tool, arguments)
        assert status == 0, err
        return [line for line in err.splitlines() if line.startswith("note: files")]

    return run


def contents(folder):
    """The files that a command wrote, by path; logs have a folder of their own for each run."""
    inside = (path for path in folder.rglob("*") if path.is_file())
    files = {str(path.relative_to(folder)): path.read_bytes() for path in inside}
    return {name: content for name, content in files.items() if not name.startswith(("20", "earlier_"))}


@pytest.mark.parametrize("name", some_slow(COMMANDS))
def test_another_result_is_moved_aside_whole_and_reported(produce, tmp_path, name):
    out = tmp_path / "out"
    assert produce(name, 0) == []
    first = contents(out)
    assert first
    aside = out / "earlier_1"
    assert produce(name, 1) == [f"note: files in {out} that would be overwritten were moved to {aside}"]
    second = contents(out)
    moved = contents(aside)
    assert moved
    for file, content in first.items():
        assert content in (moved.get(file), second.get(file)), file
    produce(name, 0)
    assert contents(aside) == moved
    assert contents(out / "earlier_2")


@pytest.mark.parametrize("name", some_slow(sorted(set(COMMANDS) - NEVER_THE_SAME)))
def test_same_result_is_replaced_without_a_message(produce, tmp_path, name):
    produce(name, 0)
    files = contents(tmp_path / "out").keys()
    assert produce(name, 0) == []
    assert not (tmp_path / "out/earlier_1").exists()
    assert contents(tmp_path / "out").keys() == files


@pytest.mark.parametrize("name", some_slow(sorted(set(COMMANDS) - {"thresholds"})))
def test_files_of_the_users_own_are_moved_and_not_lost(produce, tmp_path, name):
    produce(name, 0)
    names = [file for file in contents(tmp_path / "out") if not file.startswith(".") and "/" not in file]
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out/plots").mkdir(parents=True)
    (tmp_path / "out/pictures").mkdir()
    for file in (*names, "plots/mine.svg", "pictures/mine.jpg"):
        (tmp_path / "out" / file).write_text("mine")
    produce(name, 0)
    for file in names:
        if (tmp_path / "out" / file).read_bytes() != b"mine":
            assert (tmp_path / "out/earlier_1" / file).read_text() == "mine"
    for file in ("plots/mine.svg", "pictures/mine.jpg"):
        assert (tmp_path / "out" / file).read_text() == "mine"


def test_scores_that_are_moved_aside_are_a_run_folder(produce, tmp_path):
    produce("test_multilabel", 0)
    before = read_run(tmp_path / "out").about
    produce("test_multilabel", 1)
    assert read_run(tmp_path / "out/earlier_1").about == before
    assert read_run(tmp_path / "out").about["checkpoint"] != before["checkpoint"]


def test_scores_of_the_same_checkpoint_on_other_labels_are_moved_aside(produce, inputs, tmp_path):
    produce("test_multilabel", 0)
    file = inputs["data"] / "val.json"
    text = file.read_text()
    file.write_text(text + "\n")  # at the same place; its SHA-256 says that it is another
    try:
        assert len(produce("test_multilabel", 0)) == 1
    finally:
        file.write_text(text)
