"""Runs a stage: trains and scores its networks in separate processes, and compares them. Can resume after a stop."""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import write_report
from tresnet_downstream.files import whole_file
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.reproduction.records import Comparison, Record, Scored, Value, commit, hardware
from tresnet_downstream.reproduction.stages import STAGES, Stage, Training
from tresnet_downstream.running import folders

# File with the state of a training: its command, its duration so far in seconds, and whether it is finished.
STATE = "reproduction.json"
_SCORED = "scored"
_TICK = 2.0  # Seconds between checks of whether a training has ended.
_ETA = re.compile(r"Epoch\(train\)\s+\[(\d+)\].*?eta: ([^ ]+(?: days?, [^ ]+)?)")


class State(TypedDict):
    """The state of a training.

    Attributes:
        command: the command of the training, without the interpreter.
        commit: commit of the toolkit at the start of the training.
        seconds: duration of training and scoring so far.
        trained: whether the training is finished.
    """

    command: list[str]
    commit: str
    seconds: float
    trained: bool


@dataclass(frozen=True)
class Settings:
    """Settings of a reproduction.

    Attributes:
        data: paths of ``tiny_imagenet``, ``voc2007`` and ``lite0``; those of unneeded data may be missing.
        out: folder of all trainings, scores and reports.
        jobs: number of parallel trainings. Each gets an equal share of the cores.
        tell: is called with each line for the user.

    Examples:
        >>> settings = Settings({"voc2007": Path("voc")}, Path("results"))
        >>> settings.filled("{voc2007}/train {out}")
        'voc/train results'
    """

    data: Mapping[str, Path]
    out: Path
    jobs: int = 1
    tell: Callable[[str], None] = print

    def filled(self, text: str) -> str:
        """Replaces the placeholders of a text by the paths of the data and of the results."""
        return text.format(**self.data, out=self.out)

    @property
    def threads(self) -> int:
        """Number of threads of each training."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // self.jobs)


def run_stage(stage: Stage, settings: Settings) -> Record:
    """Runs the trainings of a stage, scores their best checkpoints, and compares the scores.

    Finished trainings and scorings are not repeated. An interrupted training is resumed from its newest checkpoint.

    Args:
        stage: the stage to run.
        settings: the paths of data and results, and the number of parallel trainings.

    Returns:
        The scores with 95% intervals and the paired differences, with commands, commits and hardware.

    Raises:
        UserError: if required data is missing, an earlier stage is not finished, a folder contains a training with
            other options, or a training or scoring fails.
    """
    _require_data(stage, settings)
    for name in stage.after:
        _require_finished(STAGES[name], settings)
    processes = _Processes()
    with ThreadPoolExecutor(settings.jobs) as pool:
        jobs = [pool.submit(_train_and_score, stage, name, settings, processes) for name in stage.trainings]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            processes.stop()
            raise
    return _record(stage, settings)


class _Processes:
    """The running processes of a stage. :meth:`stop` ends all of them."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    @contextmanager
    def started(self, command: Sequence[str], log: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
        if self._stopped:
            raise KeyboardInterrupt
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NO_ALBUMENTATIONS_UPDATE": "1"}
        with log.open("ab") as file:
            # In a new session, the process does not receive Ctrl-C. This process receives it and sends SIGTERM instead.
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            self._running.add(process)
            try:
                yield process
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                self._running.discard(process)

    def stop(self) -> None:
        self._stopped = True
        for process in tuple(self._running):
            process.send_signal(signal.SIGTERM)
        for process in tuple(self._running):
            process.wait()


def _train_and_score(stage: Stage, name: str, settings: Settings, processes: _Processes) -> None:
    training, folder = stage.trainings[name], settings.out / stage.name / name
    title = f"{stage.name}/{name}"
    state = _state(folder, training, settings)
    log = settings.out / stage.name / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if not state["trained"]:
        resume = ["--resume"] if folder.is_dir() and folders.holds_run(folder) else []
        settings.tell(f"{title}: {'resuming' if resume else 'training'}, log in {log}")
        _run([*_train_command(training, folder, settings), *resume], folder, state, title, log, settings, processes)
        state["trained"] = True
        _write_state(folder, state)
    if not (folder / _SCORED / "run.json").is_file():
        command = [*_tresnet(), "score", training.config, str(_best(folder)), "--out", str(folder / _SCORED)]
        keys = [pair for pair in _pairs(training, settings) if not pair.startswith(_ONLY_IN_TRAINING)]
        command += ["--cfg-options", *keys] if keys else []
        _run(command, folder, state, f"{title}, scoring", log, settings, processes)
    settings.tell(f"{title}: finished after {state['seconds'] / 3600:.2f} h")


# Beginnings of options that only concern training; scoring does not accept them.
_ONLY_IN_TRAINING = ("pretrained=", "load_from=", "max_epochs=", "max_lr=", "model.", "train_dataloader.", "seed=")


def _tresnet() -> list[str]:
    return [sys.executable, "-m", "tresnet_downstream"]


def _pairs(training: Training, settings: Settings) -> list[str]:
    return [f"{key}={settings.filled(value)}" for key, value in training.options.items()]


def _train_command(training: Training, folder: Path, settings: Settings) -> list[str]:
    return [
        *_tresnet(),
        *("train", training.config, "--work-dir", str(folder)),
        *("--cfg-options", *_pairs(training, settings)),
    ]


def _run(
    command: Sequence[str],
    folder: Path,
    state: State,
    title: str,
    log: Path,
    settings: Settings,
    processes: _Processes,
) -> None:
    """Runs a command, adds its duration to the state, and reports its progress once a minute."""
    started = last_report = last_write = time.monotonic()
    seconds_before = state["seconds"]
    log_size = log.stat().st_size if log.exists() else 0
    with processes.started(command, log, settings.threads) as process:
        while process.poll() is None:
            time.sleep(min(_TICK, 0.1 + time.monotonic() - started))
            now = time.monotonic()
            state["seconds"] = seconds_before + now - started
            if now - last_write > 20 and folder.is_dir():
                _write_state(folder, state)
                last_write = now
            if now - last_report > 60:
                settings.tell(f"{title}: {_progress(folder)}")
                last_report = now
    _write_state(folder, state)
    if process.returncode:
        with log.open("rb") as file:
            file.seek(log_size)
            lines = file.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {process.returncode}"
        raise UserError(
            f"{title}: {reason.removeprefix('error: ')} (log in {log}; run the same command again to continue)"
        )


def _progress(folder: Path) -> str:
    logs = sorted(folder.glob("*/*.log"))
    if logs:
        with logs[-1].open("rb") as file:
            file.seek(max(0, logs[-1].stat().st_size - 2000))
            lines = _ETA.findall(file.read().decode(errors="replace"))
        if lines:
            return "epoch {}, {} left".format(*lines[-1])
    return "running"


def _state(folder: Path, training: Training, settings: Settings) -> State:
    """Reads the state of a training from its folder. Without a state file, returns a new state."""
    command = _train_command(training, folder, settings)[3:]
    path = folder / STATE
    if not path.is_file():
        return {"command": command, "commit": commit(), "seconds": 0.0, "trained": False}
    state: State = parse_json(path.read_bytes(), path)
    keys = {"command": list, "seconds": float, "trained": bool, "commit": str}
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in keys.items()):
        raise UserError(f"{path}: is damaged; delete the folder, or choose another `out`")
    if state["command"] != command:
        raise UserError(
            f"{path}: the folder contains a training of another command, {shlex.join(state['command'])}; move the "
            "folder, or choose another `out`"
        )
    return state


def _write_state(folder: Path, state: State) -> None:
    with whole_file(folder / STATE) as partial:
        partial.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def _best(folder: Path) -> Path:
    """The checkpoint with the best validation score."""
    for pattern in ("best.pth", "best_*.pth"):
        if paths := sorted(folder.glob(pattern)):
            return paths[-1]
    raise UserError(f"{folder}: has no best checkpoint, because no validation was run")


def _require_data(stage: Stage, settings: Settings) -> None:
    for name in stage.needs:
        if name not in settings.data:
            raise UserError(f"the stage {stage.name} needs `{name}`")
        if not settings.data[name].exists():
            raise UserError(f"`{name}`: {settings.data[name]} does not exist")


def _require_finished(stage: Stage, settings: Settings) -> None:
    for name in stage.trainings:
        if not (settings.out / stage.name / name / _SCORED / "run.json").is_file():
            raise UserError(f"run the stage {stage.name} first: {settings.out / stage.name / name} has no scores")


def _scored_folder(stage: Stage, name: str, settings: Settings) -> Path:
    folder = Path(name) if "/" in name else Path(stage.name, name)
    return settings.out / folder / _SCORED


def _record(stage: Stage, settings: Settings) -> Record:
    runs: dict[str, Scored] = {}
    comparisons = []
    images = 0
    for number, (reference, others) in enumerate(stage.comparisons, 1):
        names = (reference, *others)
        out = settings.out / stage.name / f"report_{number}"
        write_report([_scored_folder(stage, name, settings) for name in names], out, list(names), tell=settings.tell)
        path = out / "scores.json"
        scores = parse_json(path.read_bytes(), path)
        images = scores["num_images"]
        headlines = {run["name"]: _headline(run["headline"]) for run in scores["runs"]}
        for name in names:
            if name in stage.trainings:
                runs[name] = _scored(stage, name, headlines[name], settings)
        comparisons += [
            Comparison(each["run"], each["minus"], each["score"], _value(each["difference"], each.get("interval")))
            for each in _boxes(scores["differences"])
        ]
    ordered = {name: runs[name] for name in stage.trainings}
    return Record(stage.name, images, hardware(settings.threads), ordered, tuple(comparisons))


def _headline(headline: object) -> dict[str, Value]:
    return {key: _value(each["value"], each.get("interval")) for key, each in _boxes(headline).items()}


def _boxes(scores: Any) -> Any:
    """Selects the scores of boxes if a detector has scores of boxes and masks. Other scores are returned unchanged."""
    return scores["bbox"] if isinstance(scores, Mapping) and "bbox" in scores else scores


def _value(value: float, interval: Sequence[float] | None) -> Value:
    low, high = interval if interval and interval[0] is not None else (None, None)
    return Value(round(value, 3), None if low is None else round(low, 3), None if high is None else round(high, 3))


def _scored(stage: Stage, name: str, scores: dict[str, Value], settings: Settings) -> Scored:
    folder = settings.out / stage.name / name
    state = _state(folder, stage.trainings[name], settings)
    return Scored(
        command=_without_paths(shlex.join(["tresnet", *state["command"]]), settings),
        commit=state["commit"],
        hours=round(state["seconds"] / 3600, 2),
        scores=scores,
        sha256=_sha256_of_scores(folder / _SCORED),
    )


def _without_paths(command: str, settings: Settings) -> str:
    """Replaces the paths of data and results in a command by their names in upper case."""
    for name, path in {**settings.data, "out": settings.out}.items():
        command = command.replace(str(path), name.upper())
    return command


def _sha256_of_scores(folder: Path) -> str:
    """SHA-256 of the probabilities or boxes. It is equal on all machines that compute equal values."""
    import gzip

    for name in ("probabilities.npy", "predictions_bbox.json.gz"):
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            return hashlib.sha256(gzip.decompress(content) if name.endswith(".gz") else content).hexdigest()
    raise UserError(f"{folder}: has no scores")
