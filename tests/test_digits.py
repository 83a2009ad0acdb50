"""The script that creates the sample data, on small sets."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tresnet_downstream import digits as digits_module
from tresnet_downstream.cli.digits import main
from tresnet_downstream.command_line import run

pytest.importorskip("sklearn")

SCRIPT = Path(__file__).parents[1] / "data" / "make_digits.py"


def make(out: Path, train: int = 30, val: int = 8, **options: int) -> int:
    arguments = {"out": out, "train": train, "val": val, **options}
    return run(main, [word for name, value in arguments.items() for word in (f"--{name}", str(value))])


def annotations(out: Path, split: str) -> dict[str, Any]:
    return json.loads((out / "annotations" / f"instances_{split}.json").read_text())


def contents(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "digits"
    assert make(out) == 0
    return out


def test_same_arguments_give_identical_files(made: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again") == 0
    assert contents(tmp_path / "again") == contents(made)


def test_smaller_set_is_a_prefix_of_a_larger_one(made: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "small", train=5, val=8) == 0
    small, large = annotations(tmp_path / "small", "train"), annotations(made, "train")
    assert small["images"] == large["images"][:5]
    assert small["annotations"] == large["annotations"][: len(small["annotations"])]
    files = contents(tmp_path / "small")
    pictures = {name for name in files if name.endswith(".jpg")}
    assert len(pictures) == 13
    assert all(files[name] == contents(made)[name] for name in pictures)


def test_another_seed_gives_other_pictures(made: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "other", train=1, val=1, seed=1) == 0
    assert (tmp_path / "other/train/000001.jpg").read_bytes() != (made / "train/000001.jpg").read_bytes()


@pytest.mark.parametrize("seed", [0, 7])
def test_splits_share_no_handwriting(seed: int) -> None:
    samples = digits_module.load_samples(seed)
    train, val = set(samples["train"].numbers), set(samples["val"].numbers)
    assert not train & val
    assert 0.97 * 1797 < len(train | val) < 1797  # scikit-learn's set, less what cannot be read
    for label in range(10):
        counts = [int((part.labels == label).sum()) for part in samples.values()]
        assert counts[0] / sum(counts) == pytest.approx(0.8, abs=0.005)


def test_annotations_name_the_handwriting_and_its_class(made: Path) -> None:
    from sklearn.datasets import load_digits

    labels = load_digits().target
    used = {}
    for split in ("train", "val"):
        boxes = annotations(made, split)["annotations"]
        assert all(labels[box["sample"]] == box["category_id"] - 1 for box in boxes)
        used[split] = {box["sample"] for box in boxes}
    assert not used["train"] & used["val"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_are_sound_coco(made: Path, split: str) -> None:
    content = annotations(made, split)
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(d + 1, str(d)) for d in range(10)]
    assert content["info"]["arguments"] == {"train": 30, "val": 8, "size": 128, "seed": 0}
    assert content["licenses"][0]["name"] == "CC BY 4.0"
    images = {image["id"]: image for image in content["images"]}
    assert {image["file_name"] for image in images.values()} == {p.name for p in (made / split).iterdir()}
    for image in images.values():
        with Image.open(made / split / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (128, 128)
            assert (picture.mode, picture.format) == ("RGB", "JPEG")
    boxes = content["annotations"]
    assert [box["id"] for box in boxes] == list(range(1, len(boxes) + 1))
    per_image = [sum(box["image_id"] == number for box in boxes) for number in images]
    assert set(per_image) <= {1, 2, 3, 4, 5}
    for box in boxes:
        x, y, width, height = box["bbox"]
        assert 0 <= x < x + width <= 128
        assert 0 <= y < y + height <= 128
        assert box["area"] == width * height
        assert box["segmentation"] == [[x, y, x + width, y, x + width, y + height, x, y + height]]
        assert box["iscrowd"] == 0


def test_all_classes_appear(made: Path) -> None:
    assert {box["category_id"] for box in annotations(made, "train")["annotations"]} == set(range(1, 11))


@pytest.mark.parametrize("size", [64, 128, 200])
def test_boxes_are_tight_around_what_is_visible(size: int) -> None:
    samples = digits_module.load_samples(0)["train"]
    for number in range(20):
        _, digits, owner = digits_module.draw_image(np.random.default_rng([3, number]), samples, size)
        assert set(np.unique(owner)) - {0} == set(range(1, len(digits) + 1))
        for k, (_, (left, top, right, bottom)) in enumerate(digits, start=1):
            inside = owner[top:bottom, left:right] == k
            assert inside.sum() == (owner == k).sum()
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            assert 18 <= max(right - left, bottom - top) * 128 / size <= 80


def test_strokes_stand_out_from_the_ground() -> None:
    samples = digits_module.load_samples(0)["train"]
    contrasts = []
    for number in range(40):
        picture, digits, owner = digits_module.draw_image(np.random.default_rng([5, number]), samples, 128)
        luma = np.asarray(picture.convert("L"), dtype=float)
        for k, (_, (left, top, right, bottom)) in enumerate(digits, start=1):
            window, part = luma[top:bottom, left:right], owner[top:bottom, left:right]
            contrasts.append(abs(np.median(window[part == k]) - np.median(window[part == 0])))
    assert min(contrasts) > 50


def test_no_place_hides_more_than_a_quarter_of_a_digit() -> None:
    owner = np.zeros((100, 100), dtype=np.intp)
    owner[20:80, 20:80] = 1
    for seed in range(50):
        box = digits_module.find_place(np.random.default_rng(seed), (40, 40), owner, [3600])
        assert box is None or (owner[box] == 1).sum() <= 0.25 * 3600
    owner[20:30] = 0  # 600 of the 3600 pixels are hidden already
    for seed in range(50):
        box = digits_module.find_place(np.random.default_rng(seed), (40, 40), owner, [3600])
        assert box is None or (owner[box] == 1).sum() <= 0.25 * 3600 - 600


def test_second_call_changes_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    assert make(made) == 0
    assert "has been created" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in made.rglob("*")} == before


def test_second_call_imports_neither_scikit_learn_nor_torch(made: Path) -> None:
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert not {'sklearn', 'torch'} & set(sys.modules)\n"
    )
    start = f"import sys; sys.argv = {[str(SCRIPT), '--out', str(made), '--train', '30', '--val', '8']!r}\n"
    subprocess.run([sys.executable, "-c", start + code], check=True)


def test_other_arguments_and_lost_pictures_make_the_set_anew(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    assert make(out, train=3, val=2) == 0
    before = contents(out)
    (out / "train" / "000002.jpg").unlink()
    assert make(out, train=3, val=2) == 0
    assert contents(out) == before
    assert make(out, train=2, val=2, size=64) == 0
    assert annotations(out, "train")["info"]["arguments"]["size"] == 64
    assert len(contents(out)) == 6
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["notes.txt", "annotations/instances_train.json"])
def test_foreign_folder_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"info": {}}')
    assert make(tmp_path) == 2
    message = capsys.readouterr().err
    assert str(tmp_path) in message
    assert message.count("\n") == 1
    assert contents(tmp_path) == {name: b'{"info": {}}'}


def test_own_folder_with_a_foreign_file_is_refused(tmp_path: Path) -> None:
    assert make(tmp_path / "digits", train=1, val=1) == 0
    (tmp_path / "digits" / "notes.txt").write_text("mine")
    assert make(tmp_path / "digits", train=2, val=1) == 2
    assert (tmp_path / "digits" / "notes.txt").read_text() == "mine"


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    assert make(tmp_path / "digits", train=1, val=1) == 0
    assert len(contents(tmp_path / "digits")) == 4


@pytest.mark.parametrize("option", [("--size", "63"), ("--train", "0"), ("--val", "-1"), ("--seed", "-1")])
def test_invalid_argument_ends_in_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    assert run(main, ["--out", str(tmp_path / "digits"), *option]) == 2
    message = capsys.readouterr().err
    assert option[0] in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_scikit_learn_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert make(tmp_path / "digits") == 2
    message = capsys.readouterr().err
    assert 'pip install "tresnet-downstream[digits]"' in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "disk full"), 2)])
def test_interrupted_run_leaves_the_old_set_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int
) -> None:
    assert make(tmp_path / "digits", train=2, val=1) == 0
    before, draw = contents(tmp_path), digits_module.draw_image
    calls = iter(range(3))

    def fail_at_the_third(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise error
        return draw(*arguments)

    monkeypatch.setattr(digits_module, "draw_image", fail_at_the_third)
    assert make(tmp_path / "digits", train=5, val=1) == status
    assert contents(tmp_path) == before


def shares_of(out: Path, split: str) -> np.ndarray:
    counts = np.bincount([box["category_id"] - 1 for box in annotations(out, split)["annotations"]], minlength=10)
    return counts / counts.sum()


def test_long_tail_makes_training_digits_rarer_from_0_to_9_and_leaves_validation_as_it_is(tmp_path: Path) -> None:
    assert make(tmp_path / "even", train=400, val=40) == 0
    assert run(main, ["--out", str(tmp_path / "tail"), "--train", "400", "--val", "40", "--long-tail", "100"]) == 0
    expected = 100 ** -(np.arange(10) / 9)
    assert expected[0] / expected[-1] == pytest.approx(100)
    expected /= expected.sum()
    np.testing.assert_allclose(digits_module.long_tailed_shares(100), expected)
    count = len(annotations(tmp_path / "tail", "train")["annotations"])
    error = np.sqrt(expected * (1 - expected) / count)
    assert (abs(shares_of(tmp_path / "tail", "train") - expected) < 5 * error).all()
    assert abs(shares_of(tmp_path / "even", "train") - 0.1).max() < 0.05
    even, tail = contents(tmp_path / "even"), contents(tmp_path / "tail")
    pictures = [name for name in even if name.startswith("val/")]
    assert len(pictures) == 40
    assert all(even[name] == tail[name] for name in pictures)
    assert "long_tail" not in annotations(tmp_path / "even", "train")["info"]["arguments"]
    assert annotations(tmp_path / "tail", "train")["info"]["arguments"]["long_tail"] == 100


def test_a_long_tail_of_1_is_the_set_without(made: Path, tmp_path: Path) -> None:
    assert run(main, ["--out", str(tmp_path / "one"), "--train", "30", "--val", "8", "--long-tail", "1"]) == 0
    assert contents(tmp_path / "one") == contents(made)


def test_an_even_set_has_the_digits_that_it_had_before_there_were_long_tails(made: Path) -> None:
    labels = [box["category_id"] for box in annotations(made, "train")["annotations"][:12]]
    assert labels == [7, 2, 1, 5, 3, 10, 1, 4, 2, 4, 9, 7]
