"""Trackers: the config key, one run for a killed and resumed training, and trackers that fail."""

import hashlib
import json
import os
import shutil

import pytest
from running.fake_trackers import DownError, Killed, fake_mlflow, fake_wandb
from running.small_data import DIGITS, call, options, refuses_to_train, train

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.trackers.hook import flat
from tresnet_downstream.running.trackers.journal import JOURNAL, Journal
from tresnet_downstream.running.trackers.results import log_scored
from tresnet_downstream.running.trackers.settings import tracker_settings

# Of a training on 24 images in batches of 8, each of which is logged: three records and a validation in each epoch.
EACH = {"default_hooks__logger__interval": 1}
TIMES = ("time", "data_time")


def journal(work_dir):
    """The records of a run's journal, without the header."""
    return [json.loads(line) for line in (work_dir / JOURNAL).read_text().splitlines()[1:]]


def rows(records):
    """Scalars by place, without times."""
    return {
        (each["kind"], each["step"]): {k: v for k, v in each["scalars"].items() if k not in TIMES}
        for each in records
        if each["kind"] in ("train", "val")
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("wandb", [{"type": "wandb"}]),
        (["tensorboard", "mlflow"], [{"type": "tensorboard"}, {"type": "mlflow"}]),
        ({"type": "wandb", "mode": "offline", "name": None}, [{"type": "wandb", "mode": "offline"}]),
        ({"type": "mlflow", "tags": {"a": 1}}, [{"type": "mlflow", "tags": {"a": "1"}}]),
    ],
)
def test_key_names_trackers(value, expected):
    assert tracker_settings(value) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("comet", ["'comet'", "'wandb'"]),
        (7, ["tracker=7"]),
        ({"project": "mine"}, ["'mlflow'"]),
        ({"type": "wandb", "projct": "mine"}, ["projct", "project"]),
        ({"type": "tensorboard", "dir": "x"}, ["it has none"]),
        ({"type": "wandb", "mode": "off"}, ["'offline'"]),
        ({"type": "wandb", "tags": "a"}, ["list of strings"]),
        ({"type": "mlflow", "experiment": 3}, ["experiment=3"]),
        (["wandb", {"type": "wandb"}], ["twice"]),
    ],
)
def test_wrong_value_is_one_line(value, words):
    with pytest.raises(UserError) as error:
        tracker_settings(value)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_missing_package_is_one_line_before_anything_is_written(data, tmp_path, monkeypatch, package):
    monkeypatch.setattr("tresnet_downstream.running.trackers.settings.find_spec", lambda name: None)
    refuses_to_train(data, tmp_path / "run", f"tresnet-downstream[{package}]", "not installed", tracker=package)
    assert not (tmp_path / "run").exists()


def test_configs_list_lists_whole_and_parts_by_their_names():
    config = {"model": {"backbone": {"layers": [1, 2]}}, "hooks": [{"type": "A"}], "x": None}
    assert flat(config) == {"model.backbone.layers": "[1, 2]", "hooks.0.type": "A", "x": None}


def test_both_trackers_get_config_scalars_scores_and_the_checkpoint(data, tmp_path, monkeypatch):
    wandb, mlflow = fake_wandb(monkeypatch), fake_mlflow(monkeypatch)
    train(data, tmp_path / "run", tracker="tensorboard,wandb,mlflow", **EACH)
    records = journal(tmp_path / "run")
    scalars = [each for each in records if each["kind"] in ("train", "val")]
    assert [(each["kind"], each["step"]) for each in scalars] == [
        *(("train", 1), ("train", 2), ("train", 3), ("val", 3)),
        *(("train", 4), ("train", 5), ("train", 6), ("val", 6)),
    ]
    ((run_id, run),) = wandb.runs.items()
    assert run_id == (tmp_path / "run" / "run_id").read_text().strip()
    assert run["config"]["model.backbone.type"] == "TResNet"
    assert run["exit_code"] == 0
    assert [row["step"] for row in run["rows"].values()] == [each["step"] for each in scalars]
    assert {"val/raw/mAP", "val/averaged/mAP", "epoch"} <= run["rows"][4].keys()
    assert run["rows"][8]["epoch"] == 2
    (stored,) = mlflow.runs.values()
    assert stored.status == "FINISHED"
    assert stored.params["model.backbone.type"] == "TResNet"
    assert sorted(m.step for m in stored.metrics if m.key == "train/loss") == [1, 2, 3, 4, 5, 6]
    assert sorted(m.step for m in stored.metrics if m.key == "val/raw/mAP") == [3, 6]
    assert mlflow.uri == f"sqlite:///{tmp_path / 'run'}/mlflow.db"
    digest = hashlib.sha256((tmp_path / "run" / "best.pth").read_bytes()).hexdigest()
    assert run["summary"]["checkpoint_sha256"] == stored.tags["checkpoint_sha256"] == digest
    of_sets = [each["scalars"] for each in scalars if each["kind"] == "val"]
    assert run["summary"]["best/mAP"] == max(each[f"{name}/mAP"] for each in of_sets for name in ("raw", "averaged"))
    assert list((tmp_path / "run").glob("*/vis_data/events.*")), "no TensorBoard"


def test_none_and_tensorboard_write_no_journal(data, tmp_path):
    train(data, tmp_path / "run", max_epochs=1, tracker="None")
    assert not (tmp_path / "run" / JOURNAL).exists()
    assert not list((tmp_path / "run").glob("*/vis_data/events.*"))


def interrupted(data, work_dir, *flags, **changes):
    """A training that a fake tracker kills."""
    with pytest.raises(Killed):
        call("train_multilabel", [DIGITS, "--work-dir", work_dir, *flags, *options(data, **changes)])


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("dies_at", [2, 5, 6, 8])
def test_killed_and_resumed_run_is_one_run_with_all_scores(data, tmp_path, monkeypatch, mode, dies_at):
    wandb, mlflow = fake_wandb(monkeypatch, mode), fake_mlflow(monkeypatch)
    changes = {"tracker": "wandb,mlflow", **EACH}
    train(data, tmp_path / "undisturbed", **changes)
    expected = rows(journal(tmp_path / "undisturbed"))
    for server in (wandb, mlflow):
        server.runs.clear()
    wandb.alive()
    wandb.dies_at, wandb.error = dies_at, Killed()
    work_dir = tmp_path / "run"
    interrupted(data, work_dir, **changes)
    wandb.alive()
    train(data, work_dir, "--resume", **changes)
    records = journal(work_dir)
    assert rows(records).keys() == expected.keys()
    # Losses are means over the last batches of a process, which a resumed one has not all seen.
    scores, of_undisturbed = (
        {place: row for place, row in each.items() if place[0] == "val"} for each in (rows(records), expected)
    )
    assert scores == of_undisturbed
    assert len({(each["kind"], each["step"]) for each in records}) == len(records)
    ((_, run),) = wandb.runs.items()
    assert run["starts"] == 2
    assert [(row["step"], row["epoch"]) for row in run["rows"].values()] == [
        (each["step"], each["place"]) for each in records if each["kind"] in ("train", "val")
    ]
    (stored,) = mlflow.runs.values()
    steps = sorted(metric.step for metric in stored.metrics if metric.key == "train/loss")
    assert steps == [1, 2, 3, 4, 5, 6]
    assert sorted(metric.step for metric in stored.metrics if metric.key == "val/raw/mAP") == [3, 6]


def test_overwrite_starts_another_run(data, tmp_path, monkeypatch, capsys):
    wandb = fake_wandb(monkeypatch)
    train(data, tmp_path / "run", max_epochs=1, tracker="wandb")
    train(data, tmp_path / "run", "--overwrite", max_epochs=1, tracker="wandb")
    assert len(wandb.runs) == 2
    assert [run["starts"] for run in wandb.runs.values()] == [1, 1]


def test_other_settings_without_a_checkpoint_start_another_run(data, tmp_path, monkeypatch):
    wandb = fake_wandb(monkeypatch)
    wandb.dies_at, wandb.error = 3, Killed()
    interrupted(data, tmp_path / "run", tracker="wandb", **EACH)
    wandb.alive()
    changes = {"tracker": "wandb", "max_lr": "2e-3", "max_epochs": 1, **EACH}
    status, _, err = call("train_multilabel", [DIGITS, "--work-dir", tmp_path / "run", *options(data, **changes)])
    assert status == 0
    assert "earlier_1" in err
    assert JOURNAL in os.listdir(tmp_path / "run" / "earlier_1")
    assert len(wandb.runs) == 2
    first, second = wandb.runs.values()
    assert (len(first["rows"]), len(second["rows"])) == (1, 4)


def test_steps_continue_if_a_resumed_run_has_another_batch_size(data, tmp_path, monkeypatch):
    wandb = fake_wandb(monkeypatch)
    train(data, tmp_path / "run", max_epochs=1, tracker="wandb", **EACH)
    train(data, tmp_path / "run", "--resume", max_epochs=3, batch_size=12, tracker="wandb", **EACH)
    train(data, tmp_path / "run", "--resume", max_epochs=4, batch_size=24, tracker="wandb", **EACH)
    ((_, run),) = wandb.runs.items()
    # Three, two and two, and one step in an epoch.
    logged = [(row["step"], row["epoch"]) for row in run["rows"].values() if "train/loss" in row]
    assert logged == [(1, 1 / 3), (2, 2 / 3), (3, 1), (4, 1.5), (5, 2), (6, 2.5), (7, 3), (8, 4)]
    assert run["config"]["batch_size"] == 24


def test_changed_settings_stand_in_tags_of_mlflow(data, tmp_path, monkeypatch):
    mlflow = fake_mlflow(monkeypatch)
    train(data, tmp_path / "run", max_epochs=1, tracker="mlflow")
    train(data, tmp_path / "run", "--resume", max_epochs=2, tracker="mlflow")
    (run,) = mlflow.runs.values()
    assert (run.params["max_epochs"], run.tags["resumed.max_epochs"]) == ("1", "2")


def test_tracker_added_to_a_resumed_run_counts_on(data, tmp_path, monkeypatch):
    wandb = fake_wandb(monkeypatch)
    train(data, tmp_path / "run", max_epochs=1)
    train(data, tmp_path / "run", "--resume", max_epochs=2, tracker="wandb", **EACH)
    ((_, run),) = wandb.runs.items()
    assert [row["step"] for row in run["rows"].values()] == [4, 5, 6, 6]


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_unreachable_tracker_is_one_line_and_no_run_is_touched(data, tmp_path, monkeypatch, kind):
    server = fake_wandb(monkeypatch) if kind == "wandb" else fake_mlflow(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    train(data, tmp_path / "run", max_epochs=1)
    before = (tmp_path / "run" / "run_id").read_text()
    server.dies_at, server.error = 1, DownError("no route\nto host")
    words = (f"tracker: {kind} cannot be reached (no route to host)", "tracker=None")
    refuses_to_train(data, tmp_path / "run", *words, flags=["--overwrite"], tracker=kind)
    assert (tmp_path / "run" / "run_id").read_text() == before
    assert not (tmp_path / "run_1").exists()


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_tracker_that_dies_is_reported_once_and_gets_the_rest_later(data, tmp_path, monkeypatch, kind):
    server = fake_wandb(monkeypatch) if kind == "wandb" else fake_mlflow(monkeypatch)
    server.dies_at = {"wandb": 4, "mlflow": 7}[kind]
    out = train(data, tmp_path / "run", tracker=kind, **EACH)
    assert out.count(f"{kind} does not respond (DownError)") == 1
    assert "best val mAP" in out
    server.alive()
    train(data, tmp_path / "run", "--resume", tracker=kind, **EACH)  # nothing is left to train
    (run,) = server.runs.values()
    if kind == "wandb":
        assert [row["step"] for row in run["rows"].values()] == [1, 2, 3, 3, 4, 5, 6, 6]
        assert "checkpoint_sha256" in run["summary"]
    else:
        assert sorted(m.step for m in run.metrics if m.key == "train/loss") == [1, 2, 3, 4, 5, 6]
        assert "checkpoint_sha256" in run.tags


def test_tracker_that_is_back_gets_what_waits(data, tmp_path, monkeypatch):
    monkeypatch.setattr("tresnet_downstream.running.trackers.tracker.SECONDS_BETWEEN_TRIES", 0.0)
    server = fake_mlflow(monkeypatch)
    server.dies_at = 7
    count = server.count

    def back():
        if server.calls == 8:
            server.dies_at = None
        count()

    server.count = back
    train(data, tmp_path / "run", tracker="mlflow", **EACH)
    (run,) = server.runs.values()
    assert sorted(m.step for m in run.metrics if m.key == "train/loss") == [1, 2, 3, 4, 5, 6]
    assert run.status == "FINISHED"


def test_options_reach_the_packages(data, tmp_path, monkeypatch):
    wandb, mlflow = fake_wandb(monkeypatch), fake_mlflow(monkeypatch)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    first = "dict(type='wandb',project='p',name='n',mode='offline',tags=['t'])"
    second = "dict(type='mlflow',experiment='e',tags=dict(a='b'))"
    train(data, tmp_path / "run", max_epochs=1, tracker=f"[{first},{second}]")
    ((_, run),) = wandb.runs.items()
    assert {key: run["options"][key] for key in ("project", "name", "mode", "tags", "resume")} == {
        "project": "p",
        "name": "n",
        "mode": "offline",
        "tags": ["t"],
        "resume": None,
    }
    assert not hasattr(wandb, "logins")
    assert mlflow.experiments == {"e": f"file://{tmp_path / 'run'}/mlflow_artifacts"}
    (stored,) = mlflow.runs.values()
    assert (stored.tags["a"], stored.name) == ("b", "run")


def test_offline_files_of_a_killed_process_are_set_aside(data, tmp_path, monkeypatch):
    """Each process writes one of its own, and the last one has all of the run."""
    fake_wandb(monkeypatch, "offline")
    train(data, tmp_path / "run", max_epochs=1, tracker="wandb")
    run_id = (tmp_path / "run" / "run_id").read_text().strip()
    (tmp_path / "run" / "wandb" / f"offline-run-1-{run_id}").mkdir(parents=True)
    (tmp_path / "run" / "wandb" / "offline-run-1-other").mkdir()
    out = train(data, tmp_path / "run", "--resume", max_epochs=2, tracker="wandb")
    assert "wandb/replaced" in out
    assert sorted(os.listdir(tmp_path / "run" / "wandb")) == ["offline-run-1-other", "replaced"]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_scores_and_report_go_to_the_run_that_trained(data, tmp_path, monkeypatch, capsys, mode):
    wandb = fake_wandb(monkeypatch, mode)
    work_dir = tmp_path / "run"
    train(data, work_dir, max_epochs=1, tracker="wandb")
    call("test_multilabel", [DIGITS, work_dir / "best.pth", "--work-dir", work_dir, *options(data)])
    report = tmp_path / "report"
    report.mkdir()
    config = load_config(DIGITS, ["tracker=wandb"])
    log_scored(config, work_dir / "best.pth", work_dir, report)
    ((run_id, run),) = wandb.runs.items()
    scores = json.loads((work_dir / "scores.json").read_text())
    assert run["summary"]["scored/mAP"] == scores["headline"]["mAP"]
    assert run["summary"]["scored/checkpoint_sha256"] == run["summary"]["checkpoint_sha256"]
    assert run["config"]["model.backbone.type"] == "TResNet"
    assert run["artifacts"] == [(f"report-{run_id}", str(report))]
    # Of a checkpoint elsewhere nobody knows the run.
    shutil.copy(work_dir / "best.pth", tmp_path / "copy.pth")
    log_scored(config, tmp_path / "copy.pth", work_dir)
    assert "is not in the folder of the run" in capsys.readouterr().out
    assert len(run["artifacts"]) == 1


def test_journal_ends_with_its_last_whole_line(tmp_path):
    first = Journal(tmp_path, "a")
    first.add_scalars("train", 0.5, 1, {"loss": 2.0})
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + b'{"number": 1, "mill')
    again = Journal(tmp_path, "a")
    assert (tmp_path / JOURNAL).read_bytes() == whole
    assert again.add_scalars("train", 0.5, 1, {"loss": 3.0, "lr": 1.0}).scalars == {"lr": 1.0}
    assert again.add_scalars("train", 0.25, 1, {"loss": 3.0}) is None
    assert again.add_scalars("val", 0.25, 1, {"loss": 3.0}).number == 2


def test_damaged_lines_of_a_journal_are_reported(tmp_path, capsys):
    Journal(tmp_path, "a").add_scalars("train", 0.5, 1, {"loss": 2.0})
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('not JSON\n[1]\n{"number": "x"}\n')
    assert len(Journal(tmp_path, "a").records) == 1
    assert "3 lines are damaged" in capsys.readouterr().out


@pytest.mark.parametrize("dies_at", [3, 6])
def test_real_mlflow_store_has_one_run_and_no_metric_twice(data, tmp_path, monkeypatch, dies_at):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wandb = fake_wandb(monkeypatch)
    wandb.dies_at, wandb.error = dies_at, Killed()
    interrupted(data, tmp_path / "run", tracker="mlflow,wandb", **EACH)
    wandb.alive()
    train(data, tmp_path / "run", "--resume", tracker="mlflow,wandb", **EACH)
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tresnet-downstream")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"


def test_real_wandb_writes_offline(data, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for max_epochs, flags in ((1, []), (2, ["--resume"])):
        arguments = options(data, max_epochs=max_epochs, tracker="dict(type='wandb',mode='offline')")
        status, _, err = call("train_multilabel", [DIGITS, "--work-dir", tmp_path / "run", *flags, *arguments])
        assert status == 0, err
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))) == 1
    assert len(list((tmp_path / "run" / "wandb" / "replaced").glob("offline-run-*/*.wandb"))) == 1
