"""Run folders: no result is overwritten, and other files in the folder are left alone."""

import os
import shutil

import pytest
import torch
from running.small_data import CLASSES, DIGITS, call, options, refused, refuses_to_train, train
from running.test_resume import read

from tresnet_downstream.errors import UserError
from tresnet_downstream.running import folders


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("folders") / "run"
    train(data, work_dir, max_epochs=2, stop_epoch=1)
    (log,) = work_dir.glob("*/*.log")
    log.parent.rename(work_dir / "20200101_000000")  # MMEngine names it by the second, which the next run may share
    return work_dir


@pytest.fixture
def work_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_training_in_a_folder_is_refused_and_changes_nothing(data, work_dir):
    before = contents(work_dir)
    refuses_to_train(data, work_dir, work_dir, "--resume", "--overwrite", "--work-dir")
    assert contents(work_dir) == before


def test_overwrite_moves_the_whole_run_aside_and_says_where(data, work_dir):
    (work_dir / "notes.txt").write_text("mine")
    before = contents(work_dir)
    for number in (1, 2):
        aside = work_dir.with_name(f"run_{number}")
        assert f"was renamed to {aside}" in train(data, work_dir, "--overwrite", max_epochs=1)
        assert read(work_dir / "best.pth")["meta"]["run_id"] == (work_dir / "run_id").read_text().strip()
        assert len(list(work_dir.glob("*/*.log"))) == 1
    assert contents(work_dir.with_name("run_1")) == before
    ids = {(work_dir.with_name(name) / "run_id").read_text() for name in ("run", "run_1", "run_2")}
    assert len(ids) == 3


@pytest.mark.parametrize("mistake", ["lr_factors.backbone=-1", "freeze.hed=1", "image_size=10", "amp=float8"])
def test_a_mistake_that_ends_a_training_before_its_first_checkpoint_leaves_the_run_of_before(data, work_dir, mistake):
    before = contents(work_dir)
    status, out, err = call(
        "train_multilabel", [DIGITS, "--work-dir", work_dir, "--overwrite", *options(data, max_epochs=1), mistake]
    )
    assert (status, err.count("\n")) == (2, 1)
    assert "the folder of the earlier run was renamed back to" in out or "was renamed to" not in out
    after = contents(work_dir)
    assert {path: after.get(path) for path in before} == before
    assert [path.name for path in work_dir.parent.iterdir() if not path.name.startswith(".")] == ["run"]


def test_scores_of_another_network_do_not_stay_beside_a_new_run(data, trained, tmp_path, capsys):
    status, _, _ = call("test_multilabel", [DIGITS, trained / "best.pth", "--work-dir", tmp_path, *options(data)])
    assert status == 0
    before = (tmp_path / "scores.json").read_bytes()
    status, _, err = call("train_multilabel", [DIGITS, "--work-dir", tmp_path, *options(data, max_epochs=1)])
    assert (status, err.count("\n")) == (0, 1)
    assert f"moved to {tmp_path / 'earlier_1'}" in err
    assert not (tmp_path / "run.json").exists()
    assert (tmp_path / "earlier_1/scores.json").read_bytes() == before


def test_overwrite_in_a_new_folder_is_an_ordinary_training(data, tmp_path):
    assert "epoch 1/1" in train(data, tmp_path / "run", "--overwrite", max_epochs=1)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["run"]


def test_link_to_a_folder_stays_a_link(data, work_dir):
    link = work_dir.with_name("link")
    link.symlink_to(work_dir)
    train(data, link, "--overwrite", max_epochs=1)
    assert link.is_symlink()
    assert (work_dir / "epoch_1.pth").exists()
    assert (work_dir.with_name("run_1") / "epoch_1.pth").exists()


def test_folder_that_the_command_runs_in_is_not_moved(data, work_dir, monkeypatch):
    monkeypatch.chdir(work_dir)
    refuses_to_train(data, ".", work_dir, "runs inside", flags=["--overwrite"])
    assert (work_dir / "best.pth").exists()


def test_resume_and_overwrite_together_are_refused(data, work_dir):
    refuses_to_train(data, work_dir, "--resume", "--overwrite", flags=["--resume", "--overwrite"])


def test_users_own_files_in_the_folder_disturb_nothing(data, tmp_path):
    own = ["epoch_3_backup.pth", "epoch_.pth", "epoch_best.pth", "my_best.pth", "notes.txt"]
    for name in own:
        (tmp_path / name).write_text("mine")
    train(data, tmp_path, max_epochs=2, keep_checkpoints=1)
    assert all((tmp_path / name).read_text() == "mine" for name in own)
    assert (tmp_path / "epoch_2.pth").exists()
    assert not (tmp_path / "epoch_1.pth").exists()


def test_run_keeps_its_id_when_it_is_resumed(data, work_dir):
    run_id = (work_dir / "run_id").read_text().strip()
    assert run_id
    train(data, work_dir, "--resume", max_epochs=2)
    assert (work_dir / "run_id").read_text().strip() == run_id
    assert {read(path)["meta"]["run_id"] for path in work_dir.glob("*.pth")} == {run_id}


def test_best_checkpoint_of_another_run_is_moved_aside_and_not_adopted(data, work_dir):
    other = read(work_dir / "best.pth")
    other["meta"]["run_id"], other["score"]["mAP"] = "other", 100.5
    torch.save(other, work_dir / "best.pth")
    printed = train(data, work_dir, "--resume", max_epochs=2)
    assert "another run" in printed
    assert "100.50" not in printed
    assert read(work_dir / "best_1.pth")["score"]["mAP"] == 100.5
    assert read(work_dir / "best.pth")["meta"]["run_id"] == (work_dir / "run_id").read_text().strip()


def test_resume_says_that_it_starts_from_the_beginning(data, tmp_path):
    printed = train(data, tmp_path / "run", "--resume", max_epochs=1)
    (line,) = [line for line in printed.splitlines() if "--resume" in line]
    assert "no checkpoint" in line
    assert "from the beginning" in line


def test_run_without_any_checkpoint_to_resume_is_refused(data, work_dir):
    (work_dir / "epoch_1.pth").unlink()
    best = (work_dir / "best.pth").read_bytes()
    refuses_to_train(data, work_dir, work_dir, "no checkpoint to resume", "epoch_1.pth", flags=["--resume"])
    (work_dir / "last_checkpoint").unlink()
    refuses_to_train(data, work_dir, work_dir, "no checkpoint to resume", flags=["--resume"])
    assert (work_dir / "best.pth").read_bytes() == best


def test_work_dir_that_cannot_be_made_is_one_line(data, trained, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below"):
        refuses_to_train(data, folder, "--work-dir", file, "not a folder")
        refuses_to_train(data, folder, "--work-dir", file, "not a folder", flags=["--overwrite"])
    refuses_to_train(data, "/proc/nowhere/run", "--work-dir", "cannot be made")
    arguments = [DIGITS, trained / "best.pth", "--work-dir", file, *options(data)]
    refused("test_multilabel", arguments, "--work-dir", file)
    assert file.read_text() == "mine"


def test_scoring_leaves_the_config_of_the_training(data, work_dir):
    saved = work_dir / "digits_tresnet.py"
    before = saved.read_text()
    arguments = [DIGITS, work_dir / "best.pth", "--work-dir", work_dir, *options(data, batch_size=4)]
    assert call("test_multilabel", arguments)[0] == 0
    assert saved.read_text() == before


def test_options_reach_every_place_of_a_saved_config(data, work_dir, tmp_path):
    saved = work_dir / "digits_tresnet.py"
    train(data, tmp_path / "again", config=saved, max_epochs=1, image_size=48)
    checkpoint = read(tmp_path / "again/epoch_1.pth")
    assert checkpoint["meta"]["run"]["fixed"]["image_size"] == 48
    assert checkpoint["param_schedulers"][0]["total_steps"] == 3
    assert checkpoint["meta"]["dataset_meta"]["classes"] == CLASSES


def test_refused_resume_leaves_the_config_of_the_training(data, work_dir):
    before = contents(work_dir)
    refuses_to_train(data, work_dir, "image_size", flags=["--resume"], image_size=48)
    after = contents(work_dir)
    assert {path: text for path, text in after.items() if path in before} == before


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"iter": "3"}', '{"epoch": null}', '{"best_ckpt": 1}', '{"a": 1}', "[" * 100_000]
)
def test_damaged_record_of_the_last_validation_is_ignored(tmp_path, content):
    note = {"iter": 30, "epoch": 3, "best_score": 0.5, "best_ckpt": "best_epoch_3.pth"}
    folders.write_validation(tmp_path, note)
    assert folders.last_validation(tmp_path) == note
    (tmp_path / "last_validation.json").write_text(content)
    assert folders.last_validation(tmp_path) == {}


def test_existing_names_are_skipped(tmp_path):
    for name in ("best.pth", "best_1.pth"):
        (tmp_path / name).write_text(name)
    assert folders.move_aside(tmp_path / "best.pth") == tmp_path / "best_2.pth"
    assert (tmp_path / "best_1.pth").read_text() == "best_1.pth"
    with pytest.raises(UserError, match="cannot be moved"):
        folders.move_aside(tmp_path / "missing")


def test_best_score_of_a_run_without_an_id_survives_every_resume(data, work_dir):
    for name in ("best.pth", "epoch_1.pth"):
        checkpoint = read(work_dir / name)
        del checkpoint["meta"]["run_id"]
        if name == "best.pth":
            checkpoint["score"]["mAP"] = 100.5
        torch.save(checkpoint, work_dir / name)
    assert "best val mAP 100.50" in train(data, work_dir, "--resume", max_epochs=2)
    assert "best val mAP 100.50" in train(data, work_dir, "--resume", max_epochs=2)
    assert not (work_dir / "best_1.pth").exists()


def test_best_checkpoint_without_an_id_is_not_adopted_by_a_run_with_one(data, work_dir):
    other = read(work_dir / "best.pth")
    del other["meta"]["run_id"]
    torch.save(other, work_dir / "best.pth")
    assert "another run" in train(data, work_dir, "--resume", max_epochs=2)
    assert (work_dir / "best_1.pth").exists()


@pytest.mark.parametrize("spelling", ["same", "relative", "link", "trailing"])
def test_predictions_never_overwrite_the_pictures(data, trained, tmp_path, monkeypatch, spelling):
    pictures = tmp_path / "pictures"
    shutil.copytree(data / "pictures", pictures)
    (tmp_path / "link").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    spellings = {"relative": "pictures/../pictures", "link": "link", "trailing": f"pictures{os.sep}"}
    out = spellings.get(spelling, pictures)
    before = contents(pictures)
    for images in ([pictures], [pictures / "val_00.jpg"], ["link/val_00.jpg"]):
        refused("predict", [trained / "best.pth", *images, "--out", out, "--device", "cpu"], "--out", "themselves")
    assert contents(pictures) == before
    status, _, err = call("predict", [trained / "best.pth", "pictures", "--out", "drawn", "--device", "cpu"])
    assert status == 0, err
    assert len(list((tmp_path / "drawn").iterdir())) == len(before)
    assert contents(pictures) == before


def test_option_that_nothing_reads_is_refused(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(f"_base_ = ['{DIGITS}']\nunread = 3\n")
    refused("train_multilabel", [config, "--cfg-options", "unread=4"], "unread", config, "no effect")
