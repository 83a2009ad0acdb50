"""A training is resumed from its newest undamaged checkpoint, whatever happened to the files of its folder.

With TRESNET_MUTATIONS=2000, 200 damaged checkpoints are tried.
"""

import random
import shutil

import pytest
import torch
from hostile import number_of_inputs
from running.small_data import refuses_to_train, train
from running.test_resume import assert_bit_for_bit_equal, read

from tresnet_downstream.errors import UserError
from tresnet_downstream.running import folders
from tresnet_downstream.running.resume_point import newest_whole_checkpoint

KINDS = ("truncated", "empty", "flipped", "zeros", "garbage", "longer")
DAMAGES = number_of_inputs(500) // 10


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("finished")
    train(data, work_dir, max_epochs=3, keep_checkpoints=3)
    return work_dir


@pytest.fixture
def work_dir(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def small_run(tmp_path):
    """A folder with three small checkpoints, the last of which is pointed to."""
    for epoch in (1, 2, 3):
        content = {"meta": {"epoch": epoch}, "state_dict": {"weight": torch.randn(64, 9)}, "optimizer": {}}
        torch.save({**content, "param_schedulers": []}, tmp_path / f"epoch_{epoch}.pth")
    folders.point_to(tmp_path, "epoch_3.pth")
    return tmp_path


@pytest.fixture
def lines(monkeypatch):
    """What is told."""
    told = []
    monkeypatch.setattr("tresnet_downstream.running.resume_point.tell", told.append)
    return told


def damage(path, kind, draw):
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    if kind == "truncated":
        content = content[:place]
    elif kind == "empty":
        content = b""
    elif kind == "flipped":
        for _ in range(20):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "zeros":
        content[place:] = bytes(len(content) - place)
    elif kind == "garbage":
        content = content[: place // 2] + draw.randbytes(200)
    else:
        content += draw.randbytes(draw.choice((30, 4000, 70_000)))
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(DAMAGES))
def test_newest_whole_checkpoint_is_taken_and_damaged_ones_are_set_aside_in_one_line(small_run, lines, seed):
    draw = random.Random(seed)
    damaged = [3, 2][: draw.randint(1, 2)]
    for epoch in damaged:
        damage(small_run / f"epoch_{epoch}.pth", draw.choice(KINDS), draw)
    expected = f"epoch_{3 - len(damaged)}.pth"
    assert newest_whole_checkpoint(small_run) == small_run / expected
    assert folders.last_checkpoint(small_run) == small_run / expected
    for epoch in damaged:
        assert not (small_run / f"epoch_{epoch}.pth").exists()
        assert (small_run / f"epoch_{epoch}.pth.damaged").is_file()
    (line,) = lines
    for name in (*(f"epoch_{epoch}.pth" for epoch in damaged), f"resumed from {expected}"):
        assert name in line
    assert "copy it again" not in line


def write_pointer(folder, kind):
    pointer = folder / "last_checkpoint"
    pointer.unlink()
    if kind == "a folder":
        pointer.mkdir()
    elif kind != "missing":
        pointer.write_bytes({"empty": b"", "not UTF-8": b"\xff\xfe\x00", "zeros": bytes(11)}[kind])


@pytest.mark.parametrize("kind", ["missing", "empty", "not UTF-8", "zeros", "a folder"])
def test_damaged_pointer_is_reported_and_rewritten(small_run, lines, kind):
    (small_run / "epoch_3.pth").rename(small_run / "epoch_10.pth")  # after epoch 2, though its name sorts before
    write_pointer(small_run, kind)
    assert newest_whole_checkpoint(small_run) == small_run / "epoch_10.pth"
    assert (small_run / "last_checkpoint").read_text() == "epoch_10.pth"
    (line,) = lines
    assert "last_checkpoint is missing or damaged" in line
    assert "resumed from epoch_10.pth" in line


def test_missing_checkpoint_of_the_pointer_is_reported(small_run, lines):
    (small_run / "epoch_3.pth").unlink()
    assert newest_whole_checkpoint(small_run) == small_run / "epoch_2.pth"
    assert "epoch_3.pth is missing" in lines[0]


def test_weights_that_are_not_finite_are_damaged(small_run):
    content = read(small_run / "epoch_3.pth")
    content["averaged_state_dict"] = {"weight": torch.tensor([1.0, float("nan")])}
    torch.save(content, small_run / "epoch_3.pth")
    assert newest_whole_checkpoint(small_run) == small_run / "epoch_2.pth"


def test_checkpoint_within_an_epoch_stands_between_the_whole_ones(small_run):
    shutil.copy(small_run / "epoch_1.pth", small_run / "epoch_3_step_7.pth")
    (small_run / "epoch_3.pth").unlink()
    assert newest_whole_checkpoint(small_run) == small_run / "epoch_3_step_7.pth"


def test_checkpoint_that_the_user_points_to_wins_over_later_ones(small_run, lines):
    folders.point_to(small_run, "epoch_1.pth")
    assert newest_whole_checkpoint(small_run) == small_run / "epoch_1.pth"
    assert not lines


def test_nothing_is_renamed_where_no_checkpoint_is_whole(small_run):
    for path in small_run.glob("*.pth"):
        path.write_bytes(path.read_bytes()[:100])
    before = sorted(small_run.iterdir())
    with pytest.raises(UserError, match=r"epoch_3\.pth.*no whole checkpoint to resume"):
        newest_whole_checkpoint(small_run)
    assert sorted(small_run.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_resumed_from_the_checkpoint_before_a_damaged_one_ends_bit_for_bit_equal(
    data, finished, work_dir, kind
):
    damage(work_dir / "epoch_3.pth", kind, random.Random(1))
    printed = train(data, work_dir, "--resume", max_epochs=3, keep_checkpoints=3)
    assert "resumed from epoch_2.pth" in printed
    assert_bit_for_bit_equal(work_dir / "epoch_3.pth", finished / "epoch_3.pth")
    assert read(work_dir / "best.pth")["score"] == read(finished / "best.pth")["score"]


def test_damaged_best_checkpoint_does_not_block_a_resume(data, work_dir):
    damage(work_dir / "best.pth", "truncated", random.Random(2))
    folders.point_to(work_dir, "epoch_2.pth")
    printed = train(data, work_dir, "--resume", max_epochs=3, keep_checkpoints=3)
    assert (work_dir / "best.pth.damaged").is_file()
    assert sum("best.pth.damaged" in line for line in printed.splitlines()) == 1
    assert read(work_dir / "best.pth")["score"]["epoch"] in (2, 3)


@pytest.mark.parametrize("part", ["averaged_state_dict", "state_dict"])
def test_checkpoint_with_a_value_that_is_not_finite_is_not_written_and_the_last_good_one_stays(
    data, tmp_path, part, monkeypatch
):
    """One flipped bit of a running statistic, or of the average."""
    from tresnet_downstream.running import runner

    def spoil(checkpoint, place):
        if place.startswith("epoch 2/"):
            name = next(name for name in checkpoint[part] if name.endswith("running_var"))
            checkpoint[part] = {**checkpoint[part], name: checkpoint[part][name] * float("inf")}
        require_finite(checkpoint, place)

    require_finite = runner.require_finite
    monkeypatch.setattr(runner, "require_finite", spoil)
    refuses_to_train(data, tmp_path, "not finite", "epoch 2", "epoch_1.pth", max_epochs=3, keep_checkpoints=1)
    assert [path.name for path in tmp_path.glob("epoch_*")] == ["epoch_1.pth"]
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "epoch_1.pth"
