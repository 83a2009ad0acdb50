"""The journal of a run: all logged values as lines of JSON in the run folder, from which trackers are updated.

A tracker may lose its last values when the process is killed, or be unreachable for a while. The journal loses nothing,
because each record is written to the file before it is sent. Scalars that a resumed training computes again are not
recorded again, so each record exists once.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tresnet_downstream.files import Earlier, open_regular
from tresnet_downstream.notices import tell

JOURNAL = "tracked.jsonl"
TRAIN, VAL, CONFIG, RESULTS = "train", "val", "config", "results"


@dataclass(frozen=True)
class Record:
    """Values that were logged at one position of a training, or after it.

    Attributes:
        number: number of the record in its journal, from 0.
        milliseconds: time of the record, since 1970.
        kind: ``train`` or ``val`` for scalars of training or validation, ``config``, or ``results``.
        place: epochs trained, with fractions.
        step: optimiser steps done.
        scalars: numbers by name.
        facts: texts by name, such as the SHA-256 of a checkpoint; for ``config``, the config's values.
        files: paths of files or folders that belong to the run, by their name in the tracker.
    """

    number: int
    milliseconds: int
    kind: str
    place: float
    step: int
    scalars: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class Journal:
    """The journal of a run. The run folder must be locked, so only one process writes.

    Args:
        folder: the run folder.
        run_id: id of the run. The journal of another run is moved to a folder ``earlier_N``.
        settings: a digest of the run's settings, for :func:`unfinished_start`.
    """

    def __init__(self, folder: str | Path, run_id: str, settings: str = "") -> None:
        self.path = Path(folder) / JOURNAL
        self.records: list[Record] = []
        header, records, length = _read(self.path)
        if length < (self.path.stat().st_size if self.path.is_file() else 0):
            os.truncate(self.path, length)  # removes the incomplete line of a killed process
        if header.get("run_id") == run_id:
            self.records = records
        else:
            Earlier(folder).keep(JOURNAL)
            self._append({"run_id": run_id, "settings": settings})
        self._last = {(record.kind, name): record.place for record in self.records for name in record.scalars}

    def add_scalars(self, kind: str, place: float, step: int, scalars: Mapping[str, float]) -> Record | None:
        """Records the scalars that are not recorded at this position or a later one; None if there are none."""
        new = {name: value for name, value in scalars.items() if place > self._last.get((kind, name), -1.0)}
        if not new:
            return None
        self._last.update(dict.fromkeys(((kind, name) for name in new), place))
        return self._add(kind, place, step, scalars=new)

    def add_config(self, place: float, step: int, config: Mapping[str, object]) -> Record | None:
        """Records the config, unless it equals the last recorded one."""
        before = next((record.facts for record in reversed(self.records) if record.kind == CONFIG), None)
        return None if before == config else self._add(CONFIG, place, step, facts=dict(config))

    def add_results(
        self, place: float, step: int, scalars: Mapping[str, float], facts: Mapping[str, str], files: Mapping[str, str]
    ) -> Record | None:
        """Records results of a training or a scoring, unless the last record with the same names is equal."""
        content: dict[str, Mapping[str, object]] = {
            "scalars": dict(scalars),
            "facts": dict(facts),
            "files": dict(files),
        }
        names = {key: set(part) for key, part in content.items()}
        for record in reversed(self.records):
            before = {key: getattr(record, key) for key in content}
            if record.kind == RESULTS and {key: set(part) for key, part in before.items()} == names:
                if before == content:
                    return None
                break
        return self._add(RESULTS, place, step, dict(scalars), dict(facts), dict(files))

    def _add(
        self,
        kind: str,
        place: float,
        step: int,
        scalars: dict[str, float] | None = None,
        facts: dict[str, object] | None = None,
        files: dict[str, str] | None = None,
    ) -> Record:
        number = self.records[-1].number + 1 if self.records else 0
        content = (scalars or {}, facts or {}, files or {})
        record = Record(number, time.time_ns() // 1_000_000, kind, place, step, *content)
        self._append(asdict(record))
        self.records.append(record)
        return record

    def _append(self, content: Mapping[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(content)}\n")
            file.flush()
            os.fsync(file.fileno())


def unfinished_start(folder: str | Path, settings: str) -> str | None:
    """The run id of a folder's journal; None if there is no journal, or it has other settings.

    It is used for folders without checkpoints: a training that was killed before its first checkpoint and is started
    again is the same run for a tracker.
    """
    header = _read(Path(folder) / JOURNAL)[0]
    run_id = header.get("run_id")
    return run_id if isinstance(run_id, str) and header.get("settings") == settings else None


def journal_id(folder: str | Path) -> str | None:
    """The run id of a folder's journal; None if there is no journal."""
    run_id = _read(Path(folder) / JOURNAL)[0].get("run_id")
    return run_id if isinstance(run_id, str) else None


def _read(path: Path) -> tuple[dict[str, object], list[Record], int]:
    """Header, records, and the length of the complete lines in bytes."""
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        return {}, [], 0
    whole = content[: content.rfind(b"\n") + 1]
    lines = [_parsed(line) for line in whole.splitlines()]
    header = lines[0] if lines else {}
    records: list[Record] = []
    damaged = 0
    for line in lines[1:]:
        try:
            record = Record(**line)
        except TypeError:
            damaged += 1
            continue
        if _is_record(record):
            records.append(record)
        else:
            damaged += 1
    if damaged:
        tell(f"{path}: {damaged} lines are damaged and cannot be sent to trackers")
    return header, records, len(whole)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_record(record: Record) -> bool:
    numbers = (record.number, record.milliseconds, record.step)
    return (
        all(type(number) is int for number in numbers)
        and type(record.place) in (int, float)
        and all(isinstance(part, dict) for part in (record.scalars, record.facts, record.files))
        and all(type(value) in (int, float) for value in record.scalars.values())
    )


def scalars_of(tags: Mapping[str, object]) -> dict[str, float]:
    """The numbers among logged values: Python numbers, numpy scalars, and tensors of one element."""
    values = {str(name): _plain_number(value) for name, value in tags.items()}
    return {name: value for name, value in values.items() if type(value) in (int, float)}


def _plain_number(value: object) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
        return value.item()
    return value
