"""Replacements of the modules wandb and mlflow, each with a server that stores what is logged."""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace


class Killed(BaseException):
    """Ends a training as a kill would: no handler of errors sees it."""


class DownError(Exception):
    """What a package raises whose server does not answer."""


@dataclass
class Server:
    """What both fakes keep.

    Attributes:
        runs: by id.
        dies_at: number of the call to log at which ``error`` is raised; None for never.
    """

    runs: dict = field(default_factory=dict)
    dies_at: int | None = None
    error: BaseException = field(default_factory=DownError)
    calls: int = 0

    def count(self):
        self.calls += 1
        if self.dies_at is not None and self.calls >= self.dies_at:
            raise self.error

    def alive(self):
        self.calls, self.dies_at = 0, None


def _module(monkeypatch, name, **content):
    module = ModuleType(name)
    module.__spec__ = SimpleNamespace(origin=f"{name}.py")
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class WandbRun:
    def __init__(self, server, options, mode):
        self.server, self.id, self.mode = server, options["id"], mode
        known = server.runs.setdefault(self.id, {"rows": {}, "summary": {}, "config": {}, "starts": 0, "artifacts": []})
        if mode == "offline":  # of each process a file of its own
            known["rows"], known["summary"], known["config"] = {}, {}, {}
        self.kept = known
        known["starts"] += 1
        known["options"] = options
        self.step = max(known["rows"], default=-1) + 1 if options["resume"] == "allow" else 0
        self.summary = SimpleNamespace(update=known["summary"].update)
        self.config = SimpleNamespace(update=lambda values, allow_val_change: known["config"].update(values))

    def define_metric(self, name, step_metric=None, hidden=False):
        pass

    def log(self, row, step):
        self.server.count()
        if step < max(self.kept["rows"], default=0):
            return  # as W&B, with a warning
        assert step not in self.kept["rows"], f"step {step} is there twice"
        self.kept["rows"][step] = row

    def log_artifact(self, artifact):
        self.kept["artifacts"].append((artifact.name, *artifact.added))

    def finish(self, exit_code):
        self.kept["exit_code"] = exit_code


class _Artifact:
    def __init__(self, name, type):
        self.name, self.added = name, []

    def add_dir(self, path):
        self.added.append(path)

    add_file = add_dir


def fake_wandb(monkeypatch, mode="online"):
    server = Server()

    def init(**options):
        return WandbRun(server, options, options.get("mode") or mode)

    def login(verify):
        server.logins = getattr(server, "logins", 0) + 1
        server.count()

    module = _module(monkeypatch, "wandb", init=init, login=login, Settings=SimpleNamespace, Artifact=_Artifact)
    module.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode=mode))
    return server


class MlflowClient:
    def __init__(self, server, uri):
        self.server, server.uri = server, uri

    def get_experiment_by_name(self, name):
        self.server.count()
        return SimpleNamespace(experiment_id=name) if name in self.server.experiments else None

    def create_experiment(self, name, artifact_location):
        self.server.experiments[name] = artifact_location
        return name

    def search_runs(self, experiments, filter_string, max_results):
        tag, value = filter_string.removeprefix("tags.`").removesuffix("'").split("` = '")
        return [run.handle for run in self.server.runs.values() if run.tags.get(tag) == value]

    def create_run(self, experiment, tags, run_name):
        run = SimpleNamespace(tags=dict(tags), params={}, metrics=set(), name=run_name, artifacts=[])
        name = str(len(self.server.runs))
        run.handle = SimpleNamespace(info=SimpleNamespace(run_id=name))
        self.server.runs[name] = run
        return run.handle

    def update_run(self, run_id, status):
        self.server.runs[run_id].status = status

    set_terminated = update_run

    def get_run(self, run_id):
        return SimpleNamespace(data=SimpleNamespace(params=self.server.runs[run_id].params))

    def get_metric_history(self, run_id, name):
        return [each for each in self.server.runs[run_id].metrics if each.key == name]

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        self.server.count()
        run = self.server.runs[run_id]
        assert len(metrics) <= 1000
        assert len(params) <= 100
        for param in params:
            assert run.params.setdefault(param.key, param.value) == param.value, "MLflow changes no parameter"
        run.tags.update({tag.key: tag.value for tag in tags})
        run.metrics |= set(metrics)  # equal ones are one, as in its database

    def set_tag(self, run_id, name, value):
        self.server.runs[run_id].tags[name] = value

    def log_artifacts(self, run_id, path, name):
        self.server.runs[run_id].artifacts.append((name, path))

    log_artifact = log_artifacts


@dataclass(frozen=True)
class Metric:
    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True)
class _Pair:
    key: str
    value: str


def fake_mlflow(monkeypatch):
    server = Server()
    server.experiments = {}
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(variable, "1")  # which the adapter would otherwise leave behind
    package = _module(monkeypatch, "mlflow")
    package.tracking = _module(monkeypatch, "mlflow.tracking", MlflowClient=lambda uri: MlflowClient(server, uri))
    package.entities = _module(monkeypatch, "mlflow.entities", Metric=Metric, Param=_Pair, RunTag=_Pair)
    return server
