"""Options of the command that train with several seeds and score a test split."""

import json

import pytest
from running.recorded import two_lines
from running.small_data import call, make_small_data, options, refused, with_test_split

from tresnet_downstream.running.several_seeds import table_of


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return with_test_split(make_small_data(folder / "two"), folder / "three")


def test_seeds_are_trained_in_folders_of_their_own_and_the_table_is_printed(data, tmp_path):
    config = two_lines(tmp_path, "max_epochs = 1")
    arguments = [config, "--out", tmp_path / "run", "--seeds", 0, 4, *options(data, max_epochs=1)]
    status, out, err = call("train_multilabel", arguments)
    assert (status, err) == (0, "")
    assert table_of(tmp_path / "run") in out
    assert "seed 4 (2 of 2):" in out
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"seed_0", "seed_4", "seeds.txt", "seeds.json"}
    status, out, err = call("train_multilabel", [*arguments[:4], 0, 4, 5, "--resume", *options(data, max_epochs=1)])
    assert (status, err) == (0, "")
    assert out.count("has been trained") == 2
    assert "(3 seeds)" in out


def test_one_seed_and_several_are_refused_together(data, tmp_path):
    arguments = ["configs/digits_tresnet.py", "--out", tmp_path, "--seed", 1, "--seeds", 1, 2, *options(data)]
    refused("train_multilabel", arguments, "--seed 1", "--seeds")


def test_scoring_names_the_split_in_its_title_and_run(data, tmp_path):
    config = two_lines(tmp_path, "test_annotations = 'test.json'; test_images = 'pictures'")
    status, _, err = call("train_multilabel", [config, "--out", tmp_path / "run", *options(data, max_epochs=1)])
    assert (status, err) == (0, "")
    scoring = [config, tmp_path / "run/best.pth", "--out", tmp_path / "scored"]
    for split in ("val", "test"):
        status, out, err = call("test_multilabel", [*scoring, "--split", split, *options(data)])
        assert status == 0, err
        assert f"weights, {split} split" in out
        assert json.loads((tmp_path / "scored/run.json").read_text())["about"]["split"] == split
    assert "earlier_1" in err
    alone = [tmp_path / "run/best.pth", "--split", "test", "--out", tmp_path / "alone", *options(data)[:1]]
    keys = [f"data_root={data}", "test_annotations=test.json", "test_images=pictures", "num_workers=0"]
    status, out, err = call("test_multilabel", [*alone, *keys])
    assert status == 0, err
    assert "weights, test split" in out
