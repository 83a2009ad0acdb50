"""The test split is not used to choose epochs, and images that it shares with the training data are reported."""

import json
import os
import shutil

import pytest
from running.recorded import two_lines
from running.small_data import DIGITS, ROOT, options, train, with_test_split
from running.small_folders import FOLDERS, make_class_folders
from running.small_folders import options as folder_options
from running.small_folders import train as train_folders

from tresnet_downstream.classification.single_label_datasets import TorchvisionDataset
from tresnet_downstream.classification.training import score_classifier
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import read_run
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.split_overlap import overlap, paths_of, tell_overlap

WARNING = "images of the {} split are in the training data too"


@pytest.fixture(scope="module")
def three_splits(data, tmp_path_factory):
    return with_test_split(data, tmp_path_factory.mktemp("three") / "data")


def config_of(folder, lines="test_annotations = 'test.json'; test_images = 'pictures'"):
    return two_lines(folder, lines)


def score(config, checkpoint, data, work_dir, split, **changes):
    flags = options(data, **changes)
    loaded = load_config(config, flags[1:])
    loaded.work_dir = str(work_dir)
    return score_classifier(loaded, checkpoint, split=split)


@pytest.fixture(scope="module")
def trained(three_splits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    printed = train(three_splits, folder / "run", config=config_of(folder), max_epochs=2)
    return folder, printed


def test_training_reads_only_the_validation_data_and_scoring_reads_the_chosen_split(
    three_splits, trained, tmp_path, capsys
):
    folder, printed = trained
    assert "test.json" not in printed
    assert "test: " not in printed
    runs = {}
    for split, count in (("val", 6), ("test", 5)):
        scores, runs[split] = score(config_of(folder), folder / "run/best.pth", three_splits, tmp_path, split)
        assert (scores.num_images, runs[split].about["split"]) == (count, split)
        assert runs[split].about["data"].endswith(f"{split}.json")
    assert not set(runs["val"].images) & set(runs["test"].images)
    assert "test: 5 images of" in capsys.readouterr().out


def test_results_of_the_two_splits_never_overwrite_one_another_silently(three_splits, trained, tmp_path, capsys):
    from tresnet_downstream.evaluation import write_scored

    folder, _ = trained
    for split in ("val", "test"):
        capsys.readouterr()
        write_scored(
            *score(config_of(folder), folder / "run/best.pth", three_splits, tmp_path, split), tmp_path / "out"
        )
    assert "earlier_1" in "".join(capsys.readouterr())
    assert read_run(tmp_path / "out").about["split"] == "test"
    assert read_run(tmp_path / "out/earlier_1").about["split"] == "val"


def test_report_says_which_split_was_scored(three_splits, trained, tmp_path):
    from tresnet_downstream.evaluation import write_report, write_scored

    folder, _ = trained
    write_scored(*score(config_of(folder), folder / "run/best.pth", three_splits, tmp_path, "test"), tmp_path / "out")
    write_report(tmp_path / "out", tmp_path / "report", resamples=0)
    assert "test split" in (tmp_path / "report/report.md").read_text()


def test_a_config_without_test_data_and_other_splits_end_in_one_line(three_splits, trained, tmp_path):
    folder, _ = trained
    best = folder / "run/best.pth"
    with pytest.raises(UserError, match="no test data: set test_annotations, test_images"):
        score(DIGITS, best, three_splits, tmp_path, "test")
    with pytest.raises(UserError, match="`split`='train': choose val or test"):
        score(DIGITS, best, three_splits, tmp_path, "train")
    with pytest.raises(UserError, match="test_annotations: no file"):
        score(config_of(folder), best, three_splits, tmp_path, "test", test_annotations="lost.json")


def test_the_test_split_alone_can_be_scored(three_splits, trained, tmp_path):
    folder, _ = trained
    changes = {"val_annotations": "None", "val_images": "None", "train_annotations": "None"}
    scores, _ = score(config_of(folder), folder / "run/best.pth", three_splits, tmp_path, "test", **changes)
    assert scores.num_images == 5


def test_same_data_of_both_splits_is_reported(three_splits, trained, tmp_path, capsys):
    folder, _ = trained
    score(config_of(folder), folder / "run/best.pth", three_splits, tmp_path, "test", test_annotations="val.json")
    assert "note: the test data of the config is its validation data" in capsys.readouterr().out


def leaking(three_splits, folder, split, count):
    """A copy of the data in which images of the training data are in another split too."""
    shutil.copytree(three_splits, folder)
    train_content, content = (json.loads((folder / f"{name}.json").read_text()) for name in ("train", split))
    for number, image in enumerate(train_content["images"][:count], start=1000):
        content["images"].append({**image, "id": number})
        content["annotations"].append({"id": number, "image_id": number, "category_id": 1})
    (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("split", ["val", "test"])
def test_training_says_how_many_images_of_other_splits_it_trains_on(three_splits, trained, tmp_path, split, capsys):
    folder, printed = trained
    assert "in the training data" not in printed
    data = leaking(three_splits, tmp_path / "data", split, 3)
    printed = train(data, tmp_path / "run", config=config_of(folder), max_epochs=1)
    total = {"val": 9, "test": 8}[split]
    (line,) = [line for line in printed.splitlines() if "in the training data" in line]
    assert f"warning: 3 of the {total} {WARNING.format(split)}, such as {data}/pictures/train_00.jpg" in line
    score(config_of(folder), folder / "run/best.pth", data, tmp_path / "scored", split)
    assert f"3 of the {total} {WARNING.format(split)}" in capsys.readouterr().out


def test_files_that_are_linked_or_copied_under_their_name_count(tmp_path):
    for name in ("train", "val", "deep/val"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(4):
        (tmp_path / f"train/{number}.png").write_bytes(b"picture %d" % number)
    os.link(tmp_path / "train/0.png", tmp_path / "val/0.png")
    (tmp_path / "val/1.png").symlink_to(tmp_path / "train/1.png")
    shutil.copy(tmp_path / "train/2.png", tmp_path / "val/2.png")
    (tmp_path / "val/3.png").write_bytes(b"another 3")  # of the same name and size
    training = [str(path) for path in (tmp_path / "train").iterdir()]
    others = sorted(str(path) for path in (tmp_path / "val").iterdir())
    assert overlap(training, others) == (3, others[0], True)
    assert overlap(training, [others[3], str(tmp_path / "val/lost.png")]) == (0, "", True)
    assert overlap(training, training)[0] == 4


def test_an_incomplete_search_reports_a_lower_bound(tmp_path, monkeypatch, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for number in range(3):
        for folder in "ab":
            (tmp_path / folder / f"{number}.png").write_bytes(b"%d" % number)
    monkeypatch.setattr("tresnet_downstream.running.split_overlap.MOST_LOOKS", 4)
    one, other = (sorted(str(path) for path in (tmp_path / folder).iterdir()) for folder in "ab")
    tell_overlap("test", one, other)
    assert "warning: at least 2 of the 3 images of the test split" in capsys.readouterr().out


def test_custom_data_sets_without_image_paths_are_not_searched():
    assert paths_of(object()) is None
    tell_overlap("val", None, ["/a"])


def test_class_folders_have_a_test_split_that_no_epoch_is_chosen_by(tmp_path, capsys):
    folders = make_class_folders(tmp_path / "folders")
    shutil.copytree(folders / "val", folders / "test")
    shutil.copy(folders / "train/red/0.jpg", folders / "test/red/0.jpg")
    config = two_lines(tmp_path, "test_images = 'test'", base=str(ROOT / FOLDERS))
    printed = train_folders(folders, tmp_path / "run", config=config, max_epochs=1)
    assert f"warning: 1 of the 15 {WARNING.format('test')}" in printed
    assert WARNING.format("val") not in printed
    loaded = load_config(config, folder_options(folders)[1:])
    loaded.work_dir = str(tmp_path / "scored")
    scores, run = score_classifier(loaded, tmp_path / "run/best.pth", split="test")
    assert (scores.num_images, run.about["split"], run.image_folder) == (15, "test", str(folders / "test"))


def test_splits_of_torchvisions_data_sets_are_compared_by_place(tmp_path, monkeypatch):
    class Part(list):
        targets = property(lambda self: [0] * len(self))

    kind = "tresnet_downstream.classification.single_label_datasets._torchvision"
    monkeypatch.setattr(kind, lambda name, root, split, *_: Part(range(4 if split == "train" else 2)))
    paths = {split: paths_of(TorchvisionDataset("CIFAR10", [], split)) for split in ("train", "test", "train+test")}
    assert overlap(paths["train"], paths["test"])[0] == 0
    assert overlap(paths["train+test"], paths["test"])[0] == 2
    assert overlap(paths["train"], paths["train+test"])[0] == 4
