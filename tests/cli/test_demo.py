"""The demonstration calls the commands in turn, with the packaged configs."""

import pytest

from tresnet_downstream.cli import demo
from tresnet_downstream.cli.main import main
from tresnet_downstream.cli.score import parser as score_parser
from tresnet_downstream.cli.train import parser as train_parser
from tresnet_downstream.errors import UserError


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The command lines of the commands that a demonstration calls; training leaves a checkpoint."""
    monkeypatch.chdir(tmp_path)
    lines = {}

    def recorded(name):
        def command(arguments):
            lines[name] = list(arguments)
            if name == "train":
                out = tmp_path / arguments[arguments.index("--out") + 1]
                out.mkdir(parents=True)
                (out / "best.pth").touch()

        return command

    for name in ("digits", "train", "score", "predict"):
        monkeypatch.setattr(getattr(demo, name), "main", recorded(name))
    return lines


def test_the_demo_makes_data_trains_scores_and_says_where_the_report_is(calls, capsys):
    assert main(["demo"]) == 0
    assert list(calls) == ["digits", "train", "score"]
    trained, scored = train_parser().parse_args(calls["train"]), score_parser().parse_args(calls["score"])
    assert (trained.config, trained.out, trained.overwrite) == ("digits_tresnet", "work_dirs/digits_tresnet", True)
    assert scored.checkpoint == "work_dirs/digits_tresnet/best.pth"
    assert f"{scored.report}/report.html" in capsys.readouterr().out


def test_the_demo_of_boxes_draws_images_too(calls, tmp_path):
    assert main(["demo", "detection", "--out", str(tmp_path / "boxes")]) == 0
    assert list(calls) == ["digits", "train", "score", "predict"]
    assert calls["train"][0] == calls["score"][0] == "digits_retinanet_tresnet"
    assert calls["predict"][0] == str(tmp_path / "boxes" / "best.pth")


def test_a_training_without_a_best_checkpoint_is_reported(tmp_path):
    with pytest.raises(UserError, match="wrote no best checkpoint"):
        demo._best(tmp_path)
