"""A run in MLflow, identified by a tag with the run id of the folder."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tresnet_downstream.running.trackers.journal import CONFIG, RESULTS, Record
from tresnet_downstream.running.trackers.settings import TrackerSetting
from tresnet_downstream.running.trackers.tracker import FAILED, FINISHED, STOPPED, TrackedRun

DATABASE, ARTIFACTS, EXPERIMENT = "mlflow.db", "mlflow_artifacts", "tresnet-downstream"
ID_TAG = "tresnet_downstream.run_id"
_STATUS = {FINISHED: "FINISHED", FAILED: "FAILED", STOPPED: "KILLED"}
# With MLflow's defaults, each call would wait for minutes while a server is down.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
# MLflow's limits per call.
_PARAMS, _METRICS = 100, 1000
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_TAG = 250, 6000, 5000
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")

T = TypeVar("T")


class MlflowRun:
    """Writes a run to MLflow's store.

    Args:
        setting: the options ``tracking_uri``, ``experiment``, ``name`` and ``tags`` that are set. The default of
            ``tracking_uri`` is the environment variable ``MLFLOW_TRACKING_URI``, or else a database in the run folder;
            the default of ``experiment`` is ``MLFLOW_EXPERIMENT_NAME``.
        folder: the run folder.
    """

    name = "mlflow"

    def __init__(self, setting: TrackerSetting, folder: Path) -> None:
        self.setting, self.folder = setting, folder.resolve()
        self.run_id = ""
        self.client: Any = None
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)

    def connect(self) -> None:
        """Requests the experiment from the store, unless the store is in the run folder.

        The run folder may be moved aside before the run begins.
        """
        import_module("mlflow.tracking")  # a broken package raises here, before the training
        if self.uri:
            self._experiment()

    @property
    def uri(self) -> str:
        """The URI of the store; empty for the store in the run folder."""
        return self.setting.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or ""

    def _experiment(self) -> Any:
        self.client = import_module("mlflow.tracking").MlflowClient(self.uri or f"sqlite:///{self.folder / DATABASE}")
        name = self.setting.get("experiment") or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        return name, self.client.get_experiment_by_name(name)

    def open(self, run: TrackedRun, records: Sequence[Record]) -> None:
        """Opens the run with the tag, or creates it; sends the records that it lacks."""
        name, experiment = self._experiment()
        if experiment is None:
            # MLflow's default is the current folder.
            artifacts = None if self.uri else (self.folder / ARTIFACTS).as_uri()
            experiment_id = self.client.create_experiment(name, artifact_location=artifacts)
        else:
            experiment_id = experiment.experiment_id
        query = f"tags.`{ID_TAG}` = '{run.run_id}'"
        matches = list(self.client.search_runs([experiment_id], filter_string=query, max_results=1))
        if matches:
            self.run_id = matches[0].info.run_id
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            tags = {**self.setting.get("tags", {}), ID_TAG: run.run_id}
            title = self.setting.get("name") or self.folder.name
            self.run_id = self.client.create_run(experiment_id, tags=tags, run_name=title).info.run_id
        self._send_missing(records, is_new=not matches)

    def _send_config(self, config: Mapping[str, object]) -> None:
        """Logs parameters. One that a resumed training changed becomes a tag, because MLflow keeps the first value."""
        entities = import_module("mlflow.entities")
        params = {_name(key): str(value)[:_LONGEST_VALUE] for key, value in config.items()}
        before = self.client.get_run(self.run_id).data.params
        new = [entities.Param(key, value) for key, value in params.items() if key not in before]
        for batch in _batches(new, _PARAMS):
            self.client.log_batch(self.run_id, params=batch)
        changed = [
            entities.RunTag(f"resumed.{key}"[:_LONGEST_NAME], value[:_LONGEST_TAG])
            for key, value in params.items()
            if key in before and before[key] != value
        ]
        for batch in _batches(changed, _PARAMS):
            self.client.log_batch(self.run_id, tags=batch)

    def _send_missing(self, records: Sequence[Record], is_new: bool) -> None:
        """Sends the metrics that the store lacks, compared by name, step and time, and all results."""
        names = set() if is_new else {name for record in records for name, *_ in _metrics(record)}
        stored = {
            (name, metric.step, metric.timestamp)
            for name in names
            for metric in self.client.get_metric_history(self.run_id, name)
        }
        lacking = [
            metric
            for record in records
            for metric in _metrics(record)
            if (metric[0], metric[3], metric[2]) not in stored
        ]
        self._send_metrics(lacking)
        for record in records:
            self._send_results(record)

    def send(self, record: Record) -> None:
        """Sends one record; MLflow stores metrics of equal name, step, time and value once."""
        self._send_metrics(_metrics(record))
        self._send_results(record)

    def _send_metrics(self, metrics: Sequence[tuple[str, float, int, int]]) -> None:
        metric_type = import_module("mlflow.entities").Metric
        for batch in _batches(metrics, _METRICS):
            self.client.log_batch(self.run_id, metrics=[metric_type(*metric) for metric in batch])

    def _send_results(self, record: Record) -> None:
        if record.kind == CONFIG:
            self._send_config(record.facts)
            return
        for name, value in record.facts.items():
            self.client.set_tag(self.run_id, _name(name), value[:_LONGEST_TAG])
        for name, path in record.files.items():
            if Path(path).is_dir():
                self.client.log_artifacts(self.run_id, path, name)
            elif Path(path).is_file():
                self.client.log_artifact(self.run_id, path, name)

    def close(self, status: str) -> None:
        """Ends the run."""
        self.client.set_terminated(self.run_id, _STATUS[status])


def _metrics(record: Record) -> list[tuple[str, float, int, int]]:
    """Name, value, time and step of a record's scalars; ``epoch`` is added to those of a training."""
    prefix = "" if record.kind == RESULTS else f"{record.kind}/"
    scalars = {f"{prefix}{name}": value for name, value in record.scalars.items()}
    if record.scalars and record.kind != RESULTS:
        scalars["epoch"] = record.place
    return [(_name(name), float(value), record.milliseconds, record.step) for name, value in scalars.items()]


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]


def _batches(items: Iterable[T], size: int) -> Iterable[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
