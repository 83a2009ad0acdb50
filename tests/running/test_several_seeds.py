"""A training with several seeds: a folder for each, a table, and no repeated trainings."""

import json
import statistics

import pytest
from running.small_data import DIGITS, forget_mmengine, options
from running.test_resume import assert_bit_for_bit_equal, read

from tresnet_downstream.classification.training import best_score, train_classifier
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.several_seeds import table_of, train_seeds

TRAINED = []


def seeds(data, work_dir, several, resume=False, overwrite=False, fails=None, **changes):
    """Trains with several seeds; at the seed ``fails``, the training is cut after its first epoch."""
    TRAINED.clear()

    def config_of(seed):
        return load_config(DIGITS, [*options(data, max_epochs=2, **changes)[1:], f"seed={seed}"])

    def train(config, resume, launcher, overwrite):
        forget_mmengine()
        TRAINED.append((config.seed, resume))
        if config.seed == fails:
            config.custom_hooks[1].epoch = 1  # stop_epoch
            train_classifier(config, resume, launcher, overwrite)
            raise KeyboardInterrupt
        return train_classifier(config, resume, launcher, overwrite)

    return train_seeds(several, work_dir, config_of, train, best_score, resume=resume, overwrite=overwrite)


@pytest.fixture(scope="module")
def two_seeds(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("seeds")
    return work_dir, seeds(data, work_dir, [0, 3])


def test_each_seed_has_a_folder_and_the_table_has_mean_deviation_and_interval(two_seeds):
    work_dir, scores = two_seeds
    assert list(scores) == [0, 3]
    for seed in (0, 3):
        assert read(work_dir / f"seed_{seed}/best.pth")["score"]["mAP"] == scores[seed]
    content = json.loads((work_dir / "seeds.json").read_text())
    assert content["score"] == "mAP"
    assert [each["score"] for each in content["seeds"]] == list(scores.values())
    assert content["mean"] == pytest.approx(statistics.mean(scores.values()))
    assert content["std"] == pytest.approx(statistics.stdev(scores.values()))
    half = 12.706 * content["std"] / 2**0.5
    assert content["interval"] == pytest.approx([content["mean"] - half, content["mean"] + half], abs=1e-2)
    text = (work_dir / "seeds.txt").read_text()
    assert text == f"{table_of(work_dir)}\n"
    assert f"{scores[3]:.2f}" in text
    assert "95% t interval of the mean" in text


def test_a_seeds_run_is_that_of_a_training_with_this_seed_alone(two_seeds, data, tmp_path):
    seeds(data, tmp_path, [3])
    assert_bit_for_bit_equal(tmp_path / "seed_3/epoch_2.pth", two_seeds[0] / "seed_3/epoch_2.pth")


@pytest.mark.slow
def test_resuming_skips_finished_seeds_continues_an_interrupted_one_and_adds_others(data, tmp_path, two_seeds, capsys):
    with pytest.raises(KeyboardInterrupt):
        seeds(data, tmp_path, [0, 3], fails=3)
    assert json.loads((tmp_path / "seeds.json").read_text())["seeds"][0]["seed"] == 0
    with pytest.raises(UserError, match="seed_0: holds a run already"):
        seeds(data, tmp_path, [0, 3])
    capsys.readouterr()
    scores = seeds(data, tmp_path, [0, 3], resume=True)
    assert TRAINED == [(3, True)]
    assert "seed 0 (1 of 2): has been trained" in capsys.readouterr().out
    assert scores == two_seeds[1]
    assert_bit_for_bit_equal(tmp_path / "seed_3/epoch_2.pth", two_seeds[0] / "seed_3/epoch_2.pth")
    more = seeds(data, tmp_path, [5], resume=True)
    assert TRAINED == [(5, False)]
    assert list(more) == [0, 3, 5]


def test_seeds_that_were_trained_otherwise_are_not_put_into_one_table(data, two_seeds):
    with pytest.raises(UserError, match=r"trained with other settings: max_lr was 0\.001 and is now 0\.002"):
        seeds(data, two_seeds[0], [0, 3, 4], resume=True, max_lr=2e-3)
    assert TRAINED == []


def test_overwrite_moves_the_results_aside(data, tmp_path, capsys):
    before = seeds(data, tmp_path, [1])
    with pytest.raises(UserError, match="holds scores of several seeds already"):
        seeds(data, tmp_path, [2])
    seeds(data, tmp_path, [1], overwrite=True, max_lr=2e-3)
    assert json.loads((tmp_path / "earlier_1/seeds.json").read_text())["seeds"][0]["score"] == before[1]
    assert read(tmp_path / "seed_1_1/best.pth")["score"]["mAP"] == before[1]


def test_a_run_that_took_the_place_of_a_seeds_is_not_taken_for_it(data, tmp_path):
    seeds(data, tmp_path, [1])
    (tmp_path / "seed_1/run_id").write_text("another\n")
    seeds(data, tmp_path, [1], resume=True)
    assert TRAINED == [(1, True)]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other"}', '{"format": "tresnet_downstream.seeds"}'])
def test_damaged_results_end_in_one_line(data, tmp_path, content):
    (tmp_path / "seeds.json").write_text(content)
    with pytest.raises(UserError, match=r"seeds\.json"):
        seeds(data, tmp_path, [1], resume=True)


@pytest.mark.parametrize(
    ("several", "words"), [([], "at least one"), ([0, 0], "0 is named twice"), ([-1], "not a whole number")]
)
def test_invalid_seeds_are_refused(data, tmp_path, several, words):
    with pytest.raises(UserError, match=words):
        seeds(data, tmp_path, several)
