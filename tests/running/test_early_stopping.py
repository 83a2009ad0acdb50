"""Early stopping by the score of best.pth, also in resumed trainings and on several processes."""

import json
import math

import pytest
import torch
from running.recorded import interrupting, two_lines
from running.small_data import options, refuses_to_train, train
from running.test_resume import assert_bit_for_bit_equal, read
from running.torchrun import train_on_processes

from tresnet_downstream.running.early_stopping import PatienceHook, Validated, validations_waited
from tresnet_downstream.running.signals import TrainingStopped

# No score is better than the first by 200.
NEVER = "patience = 2; min_delta = 200"


def epochs(printed):
    return [line.split("/")[0] for line in printed.splitlines() if line.startswith("epoch ")]


def stops(printed):
    return [line for line in printed.splitlines() if line.startswith("stopped at")]


@pytest.mark.parametrize(
    ("scores", "sign", "min_delta", "waited"),
    [
        ([], 1, 0, 0),
        ([1], 1, 0, 0),
        ([1, 1], 1, 0, 1),
        ([1, 2, 1.5, 1.9], 1, 0, 2),
        ([3, 2, 2.5], -1, 0, 1),
        ([1, 1.4, 1.8], 1, 0.5, 0),  # by little each time: the third is better than the best that counted by 0.8
        ([math.nan, math.nan], 1, 0, 2),
        ([2, math.nan, 3, math.nan], 1, 0, 1),
    ],
)
def test_a_score_counts_if_it_is_better_than_the_best_that_counted(scores, sign, min_delta, waited):
    assert validations_waited(scores, sign, min_delta) == waited


def test_training_ends_after_patience_validations_without_improvement(data, tmp_path):
    train(data, tmp_path / "free", max_epochs=5)
    scores = [score for _, score in read(tmp_path / "free/epoch_5.pth")["meta"]["validated"]["validations"]]
    last = json.loads((tmp_path / "free/last_validation.json").read_text())["validated"]["validations"]
    assert [score for _, score in last][:4] == scores
    assert len(last) == 5
    printed = train(data, tmp_path / "run", config=two_lines(tmp_path, NEVER), max_epochs=5)
    assert epochs(printed) == ["epoch 1", "epoch 2", "epoch 3"]
    assert "stopped by" not in printed
    assert stops(printed) == [
        f"stopped at epoch 3: no better mAP by more than 200 for 2 validations (best {max(scores[:3]):.2f})"
    ]
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", tmp_path / "run/epoch_3.pth")
    assert read(tmp_path / "run/best.pth")["score"]["mAP"] == max(scores[:3])


def test_of_raw_and_averaged_weights_the_better_score_of_each_validation_counts(data, tmp_path):
    train(data, tmp_path / "run", max_epochs=3)
    rows = [
        json.loads(line) for path in (tmp_path / "run").rglob("scalars.json") for line in path.read_text().splitlines()
    ]
    both = [(row["raw/mAP"], row["averaged/mAP"]) for row in rows if "raw/mAP" in row]
    note = json.loads((tmp_path / "run/last_validation.json").read_text())["validated"]
    assert [score for _, score in note["validations"]] == pytest.approx([max(each) for each in both])
    assert (note["score"], note["sign"]) == ("mAP", 1)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2])
def test_interrupted_training_ends_where_the_uninterrupted_one_does(data, tmp_path, stop):
    config = two_lines(tmp_path, NEVER)
    train(data, tmp_path / "whole", config=config, max_epochs=5)
    train(data, tmp_path / "parts", config=config, max_epochs=5, stop_epoch=stop)
    printed = train(data, tmp_path / "parts", "--resume", config=config, max_epochs=5)
    assert len(stops(printed)) == 1
    assert stops(printed)[0].startswith("stopped at epoch 3")
    assert_bit_for_bit_equal(tmp_path / "parts/epoch_3.pth", tmp_path / "whole/epoch_3.pth")
    again = train(data, tmp_path / "parts", "--resume", config=config, max_epochs=5)
    assert "nothing is left to train: no better mAP" in again
    assert epochs(again) == []
    more = train(data, tmp_path / "parts", "--resume", config=config, max_epochs=5, patience=3)
    assert "resumed with a change: patience was 2 and is now 3" in more
    assert stops(more)[0].startswith("stopped at epoch 4")


def test_training_whose_validation_a_signal_interrupted_ends_where_the_uninterrupted_one_does(data, tmp_path):
    config = interrupting(tmp_path, 6, "validation", NEVER)
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config, max_epochs=5)
    printed = train(data, tmp_path / "run", "--resume", config=two_lines(tmp_path, NEVER), max_epochs=5)
    assert stops(printed)[0].startswith("stopped at epoch 3")


def test_the_scores_of_a_lost_note_are_those_of_the_checkpoint(data, tmp_path):
    config = two_lines(tmp_path, NEVER)
    train(data, tmp_path / "run", config=config, max_epochs=5, stop_epoch=2)
    (tmp_path / "run/last_validation.json").unlink()
    printed = train(data, tmp_path / "run", "--resume", config=config, max_epochs=5)
    assert "epoch 2/5 has not been validated; validating it now" in printed
    assert stops(printed)[0].startswith("stopped at epoch 3")


def test_with_validations_by_step_training_ends_within_an_epoch_and_continues_from_there(data, tmp_path):
    config = two_lines(tmp_path, f"{NEVER}; val_steps = 2")
    printed = train(data, tmp_path / "run", config=config, max_epochs=4, checkpoint_steps=2)
    # 3 steps in an epoch: validated at 2, 4, 6.
    assert stops(printed)[0].startswith("stopped at step 6 (epoch 2)")
    shorter = train(data, tmp_path / "other", config=config, max_epochs=4, patience=1)
    assert stops(shorter)[0].startswith("stopped at step 4 (epoch 2)")
    assert (tmp_path / "other/last_checkpoint").read_text() == "epoch_2_step_4.pth"
    more = train(data, tmp_path / "other", "--resume", config=config, max_epochs=4)
    assert stops(more)[0].startswith("stopped at step 6 (epoch 2)")
    # Where the training stopped differs, and nothing else.
    one, other = (read(tmp_path / name / "epoch_2.pth")["state_dict"] for name in ("run", "other"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_stopped_training_has_a_checkpoint_of_its_last_epoch_whatever_the_interval(data, tmp_path):
    config = two_lines(tmp_path, NEVER)
    train(data, tmp_path / "run", config=config, max_epochs=6, default_hooks__checkpoint__interval=4)
    assert (tmp_path / "run/last_checkpoint").read_text() == "epoch_3.pth"


@pytest.mark.slow
def test_all_processes_stop_together(data, tmp_path):
    config = two_lines(tmp_path, NEVER)
    ended = train_on_processes(2, config, tmp_path / "run", *options(data, max_epochs=5, batch_size=4))
    assert ended.status == 0, ended.err
    assert len(stops(ended.out)) == 1
    assert (tmp_path / "run/last_checkpoint").read_text() == "epoch_3.pth"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("patience = 0", ("patience=0", "at least 1")),
        ("patience = 1.5", ("patience=1.5",)),
        ("patience = 1; min_delta = -1", ("min_delta=-1", "at least 0")),
    ],
)
def test_settings_that_cannot_be_followed_end_in_one_line(data, tmp_path, line, words):
    refuses_to_train(data, tmp_path / "run", *words, config=two_lines(tmp_path, line))


@pytest.mark.parametrize("stored", [None, {}, {"score": 1}, {"score": "a", "sign": 3, "validations": []}, [1], "text"])
def test_damaged_scores_count_as_none(stored):
    hook = PatienceHook(2)
    hook._take_up(stored)
    assert hook.validated == []


def test_scores_are_stored_as_plain_data_and_restored():
    hook, other = PatienceHook(2), PatienceHook(2)
    hook.name, hook.sign, hook.validated = "loss", -1, [Validated(0.5, 3.0), Validated(1.0, math.nan)]
    other._take_up(json.loads(json.dumps(hook.plain())))
    assert (other.name, other.sign, other.validated[0]) == ("loss", -1, hook.validated[0])
    assert math.isnan(other.validated[1].score)
