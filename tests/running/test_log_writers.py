"""Writers of logs of other packages: MLflow's store, and errors in one line."""

import sys
from types import SimpleNamespace

import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization import BaseVisBackend
from mmengine.visualization.vis_backend import force_init_env
from running.small_data import refuses_to_train, train

from tresnet_downstream.running.log_writers import with_mlflow_store

MLFLOW = {"type": "MLflowVisBackend"}


def store(work_dir, **backend):
    (given,) = with_mlflow_store({"vis_backends": [{**MLFLOW, **backend}]}, work_dir)["vis_backends"]
    return given


def test_mlflow_keeps_its_runs_in_a_database_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store(tmp_path) == {
        **MLFLOW,
        "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
        "exp_name": tmp_path.name,
        "artifact_location": f"file://{tmp_path}/mlflow_artifacts",
    }


def test_mlflow_store_of_the_config_or_the_environment_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert store(tmp_path) == {**MLFLOW, "tracking_uri": "http://server"}
    assert store(tmp_path, tracking_uri="http://other") == {**MLFLOW, "tracking_uri": "http://other"}


def test_other_writers_stay_as_they_are(tmp_path):
    visualizer = {"type": "Visualizer", "vis_backends": [{"type": "TensorboardVisBackend"}]}
    assert with_mlflow_store(visualizer, tmp_path) == visualizer
    assert with_mlflow_store({"type": "Visualizer"}, tmp_path)["vis_backends"] == []


def test_training_gives_mlflow_the_database_of_its_folder(data, tmp_path, monkeypatch):
    """As MLflow 3, which raises for a store of files."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uris = []
    names = ["create_experiment", "end_run", "log_artifact", "log_metric", "log_metrics", "log_params", "log_text"]
    fake = SimpleNamespace(
        __spec__=SimpleNamespace(origin="mlflow.py"),
        set_tracking_uri=uris.append,
        get_experiment_by_name=lambda name: name,
        set_experiment=lambda name: None,
        **{name: lambda *_, **__: None for name in names},
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    train(data, tmp_path / "run", max_epochs=1, visualizer__vis_backends__1__type="MLflowVisBackend")
    assert uris == [f"sqlite:///{tmp_path / 'run'}/mlflow.db"]


@pytest.fixture
def writer_without_login():
    class LoginVisBackend(BaseVisBackend):
        def _init_env(self):
            raise RuntimeError("No API key\nconfigured")

        @property
        @force_init_env
        def experiment(self):
            return self

    VISBACKENDS.register_module(module=LoginVisBackend)
    yield
    VISBACKENDS._module_dict.pop("LoginVisBackend")


@pytest.mark.usefixtures("writer_without_login")
def test_writer_that_cannot_start_is_one_line(data, tmp_path):
    refuses_to_train(
        data,
        tmp_path / "run",
        "LoginVisBackend cannot start (No API key configured)",
        "leave it out",
        visualizer__vis_backends__1__type="LoginVisBackend",
    )
