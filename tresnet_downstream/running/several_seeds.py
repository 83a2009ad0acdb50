"""Trains a config with several seeds, each in its own folder, and writes a table of the scores."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.repeated_scores import format_seeds, repeated_scores
from tresnet_downstream.evaluation.result_files import json_text, plain, write_files
from tresnet_downstream.files import Earlier
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.notices import tell
from tresnet_downstream.running import folders
from tresnet_downstream.running.early_stopping import BestScore
from tresnet_downstream.running.resumed_state import RunSettings
from tresnet_downstream.running.resuming import changes, run_settings
from tresnet_downstream.running.runner import join_processes

TABLE, RESULTS = "seeds.txt", "seeds.json"
FORMAT, VERSION = "tresnet_downstream.seeds", 1

Train = Callable[[Config, bool, str, bool], Mapping[str, float | str]]

T = TypeVar("T")


class _Record(TypedDict):
    """A seed in ``seeds.json``.

    Attributes:
        seed: the seed.
        score: its best score.
        run_id: id of its run.
        folder: name of its run folder.
        best: result of its training.
    """

    seed: int
    score: float
    run_id: str
    folder: str
    best: Mapping[str, object]


class _Table(TypedDict, total=False):
    """The content of ``seeds.json`` that is read; empty before the first seed.

    Attributes:
        score: name of the score.
        settings: the settings that all seeds share.
        seeds: the trained seeds.
    """

    score: str
    settings: RunSettings
    seeds: list[_Record]


def train_seeds(
    seeds: Sequence[int],
    work_dir: str | Path,
    config_of: Callable[[int], Config],
    train: Train,
    score_of: Callable[[Config, Mapping[str, float | str]], BestScore | None],
    resume: bool = False,
    launcher: str = "none",
    overwrite: bool = False,
) -> dict[int, float]:
    """Trains with each seed in ``work_dir/seed_N``, and writes a table of the best scores.

    ``seeds.txt`` and ``seeds.json`` in ``work_dir`` contain each seed's score, and the mean, standard deviation and 95%
    t interval of the scores. They are written after each seed. With ``resume``, seeds in ``seeds.json`` are not trained
    again, an interrupted seed is resumed, and new seeds are added.

    Args:
        seeds: different whole numbers, at least 0.
        work_dir: folder of the table and of the seeds' run folders.
        config_of: returns the config for a seed; its ``work_dir`` is set here.
        train: :func:`train_classifier`, :func:`train_detection` or :func:`train_joint`.
        score_of: returns the score from the result of ``train``; None if nothing was scored.
        resume: whether to continue the trainings in ``work_dir``.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.
        overwrite: whether to move earlier results, and earlier runs of these seeds, aside.

    Returns:
        the scores by seed, including those of earlier calls.

    Raises:
        UserError: if a seed is invalid; if a folder holds a run, without ``resume`` or ``overwrite``; if the settings
            differ from those of the seeds in ``seeds.json``; and if ``train`` raises it.
    """
    _check(seeds)
    join_processes(launcher)
    folder = Path(work_dir)
    for seed in seeds:
        folders.check(_folder(folder, seed), resume, overwrite)
    if not (resume or overwrite) and (folder / RESULTS).exists():
        raise UserError(
            f"{folder}: holds scores of several seeds already: `resume` continues them, `overwrite` moves them "
            "aside, and `work_dir` names another folder"
        )
    earlier: _Table = _read(folder / RESULTS) if resume and is_main_process() else {}
    stored = _agreed(earlier)
    if overwrite and is_main_process():
        Earlier(folder).keep(TABLE, RESULTS)
    for number, seed in enumerate(seeds, 1):
        config = config_of(seed)
        config.work_dir = str(_folder(folder, seed))
        settings = _settings(config)
        _require_same(folder / RESULTS, stored, settings)
        if _agreed(_is_finished(folder, stored, seed)):
            tell(f"seed {seed} ({number} of {len(seeds)}): has been trained, in {_folder(folder, seed)}")
            continue
        tell(f"seed {seed} ({number} of {len(seeds)}):")
        began = int(time.time())
        holds_run = _agreed(folders.holds_run(config.work_dir))
        best = train(config, resume and holds_run, launcher, overwrite)
        score = score_of(config, best)
        if score is None:
            raise UserError(f"{config.work_dir}: nothing was scored, so seeds cannot be compared")
        record: _Record = {
            "seed": seed,
            "score": score.value,
            "run_id": _agreed(_run_id(folder, seed)),
            "folder": _folder(folder, seed).name,
            "best": plain(dict(best)),
        }
        others = [each for each in stored.get("seeds", ()) if each["seed"] != seed]
        stored = {"score": score.name, "settings": settings, "seeds": [*others, record]}
        if is_main_process():
            _write(folder, stored)
        while int(time.time()) == began:  # MMEngine names the log of a run by the second
            time.sleep(0.05)
    return _scores(stored)


def table_of(work_dir: str | Path) -> str:
    """The table of scores that :func:`train_seeds` wrote, as text.

    Raises:
        UserError: if the folder has none.
    """
    content = _read(Path(work_dir) / RESULTS)
    if not content:
        raise UserError(f"{work_dir}: has no {RESULTS}")
    return format_seeds(content["score"], _scores(content))


def _check(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UserError("`seeds`: name at least one")
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise UserError(f"`seeds`: {seed!r} is not a whole number from 0 to 2**32 - 1")
    if twice := [seed for seed in seeds if list(seeds).count(seed) > 1]:
        raise UserError(f"`seeds`: {twice[0]} is named twice")


def _folder(folder: Path, seed: int) -> Path:
    return folder / f"seed_{seed}"


def _settings(config: Config) -> RunSettings:
    """The settings that all seeds share."""
    settings = run_settings(config, get_world_size())
    settings["fixed"].pop("seed", None)
    shared: RunSettings = plain(settings)
    return shared


def _require_same(path: Path, stored: _Table, settings: RunSettings) -> None:
    """Raises UserError if the stored seeds were trained with other settings."""
    if not stored:
        return
    before = stored["settings"]
    if differ := [*changes(before["fixed"], settings["fixed"]), *changes(before["free"], settings["free"])]:
        others = f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""
        raise UserError(
            f"{path}: its seeds were trained with other settings: {differ[0]}{others}: restore the earlier value, or "
            "give `overwrite` or another `work_dir`"
        )


def _is_finished(folder: Path, stored: _Table, seed: int) -> bool:
    """Whether a seed's score is stored, and the seed's folder still holds that run."""
    record = next((each for each in stored.get("seeds", ()) if each["seed"] == seed), None)
    return record is not None and bool(record["run_id"]) and record["run_id"] == _run_id(folder, seed)


def _run_id(folder: Path, seed: int) -> str:
    try:
        return (_folder(folder, seed) / folders.RUN_ID).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _agreed(value: T) -> T:
    """The value of the first process, in all processes."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def _read(path: Path) -> _Table:
    """Reads ``seeds.json``; empty if it does not exist.

    Raises:
        UserError: if the file is damaged, or of another version.
    """
    if not path.is_file():
        return {}
    content = parse_json(path.read_bytes(), path)
    keys = {"format": str, "version": int, "score": str, "settings": dict, "seeds": list}
    is_whole = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in keys.items())
    if not is_whole or content["format"] != FORMAT or content["version"] != VERSION or not _are_records(content):
        raise UserError(f"{path}: is damaged, or not a table of seeds; give `overwrite` or another `work_dir`")
    result: _Table = content
    return result


def _are_records(content: Mapping[str, Any]) -> bool:
    kinds = {"seed": (int,), "score": (int, float), "run_id": (str,)}
    return {"fixed", "free"} <= content["settings"].keys() and all(
        isinstance(each, dict) and all(type(each.get(key)) in types for key, types in kinds.items())
        for each in content["seeds"]
    )


def _scores(stored: _Table) -> dict[int, float]:
    return {each["seed"]: float(each["score"]) for each in sorted(stored["seeds"], key=lambda each: each["seed"])}


def _write(folder: Path, stored: _Table) -> None:
    scores = _scores(stored)
    total = repeated_scores(list(scores.values()))
    content = {
        "format": FORMAT,
        "version": VERSION,
        **stored,
        "mean": total.mean,
        "std": total.std,
        "interval": [total.low, total.high],
    }
    write_files(folder, {TABLE: f"{format_seeds(stored['score'], scores)}\n", RESULTS: json_text(content)})
