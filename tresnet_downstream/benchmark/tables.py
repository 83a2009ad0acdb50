"""Writes the results of the benchmark as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from tresnet_downstream.benchmark.measure import Result
from tresnet_downstream.benchmark.networks import network_named
from tresnet_downstream.evaluation.result_files import write_files
from tresnet_downstream.files import Earlier

FORMAT, VERSION = "tresnet_downstream.benchmark", 2
PLOT = "plot.png"
_ABSENT = "-"
_NOTES = """\
- images/s: median over the repeats (first to third quartile). The rows of a table were timed in turn.
- kept: memory that the forward pass leaves for the backward pass. peak: largest memory in use during a step, without
  weights, their gradients and the images. Both are in MiB per image.
- GMACs: multiply-adds of the forward pass for one image, in 10^9.
- convolutions alone: share of the step's time that its convolutions and linear layers take if each runs by itself, in
  turn with the step, in its shape and type and with the fastest of torch's operators (in training: forward, input
  gradient and weight gradient); median (first to third quartile). A step without other operations would have 100%.
- training: forward pass, cross-entropy, backward pass and a step of SGD with momentum; bfloat16 and float16 by
  autocast. inference: weights and images in the type of the table. All tensors are channels-last."""


def markdown(results: Sequence[Result], about: Mapping[str, str], peer: str | None) -> str:
    """Returns the machine, a table for each group, and the meaning of the columns, as Markdown."""
    parts = ["; ".join(f"{key}: {value}" for key, value in about.items())]
    for title, members in groupby(results, key=lambda result: result.group):
        parts.append(f"### {title}\n\n{_table(list(members), peer)}")
    notes = [_NOTES, *_sources(results)]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def _table(results: Sequence[Result], peer: str | None) -> str:
    measured = [result for result in results if result.obstacle is None]
    rows = [_row(result) for result in measured]
    # A column without values in this group is left out.
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] != _ABSENT for row in rows)]
    headings = [f"x {peer}" if name == "x peer" else name for name in columns]
    lines = [_line(headings), _line(["---"] + ["---:"] * (len(columns) - 1))] if rows else []
    lines += [_line([row[name] for name in columns]) for row in rows]
    skipped = [f"Not run: {result.case.label}: {result.obstacle}." for result in results if result.obstacle]
    unknown = [
        f"Convolutions alone, {result.case.label}: share unknown: {result.why_share_is_unknown}."
        for result in measured
        if result.why_share_is_unknown
    ]
    return "\n\n".join("\n".join(part) for part in (lines, [*unknown, *skipped]) if part)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(result: Result) -> dict[str, str]:
    case = result.case
    return {
        "network": case.label,
        "size": str(case.size),
        "batch": str(case.batch_size),
        "images/s": _with_spread(result.images_per_second, result.quartiles),
        "x peer": _ABSENT if result.ratio is None else str(result.ratio),
        "kept": _number(result.kept, ".1f"),
        "peak": _number(result.peak, ".1f"),
        "largest batch": _number(result.largest_batch, ","),
        "GMACs": _number(result.macs, ".2f", 1e-9),
        "parameters, M": _number(result.parameters, ".1f", 1e-6),
        "convolutions alone": _share(result),
        "top-1": _number(result.top1, ".1f"),
    }


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return _ABSENT if value is None else format(factor * value, form)


def _share(result: Result) -> str:
    if result.share is None:
        return "unknown" if result.why_share_is_unknown else _ABSENT
    return f"{result.share} of the step"


def _with_spread(value: float | None, quartiles: tuple[float, float] | None) -> str:
    if value is None or quartiles is None:
        return _ABSENT
    return f"{value:.4g} ({quartiles[0]:.4g} to {quartiles[1]:.4g})"


def _sources(results: Sequence[Result]) -> list[str]:
    """Returns a line with the publications of the scores in the tables."""
    shown = {(result.case.network, result.case.size) for result in results if result.obstacle is None}
    by_source: dict[str, list[str]] = {}
    for name, size in sorted(shown):
        if published := network_named(name).published.get(size):
            by_source.setdefault(published.source, []).append(name)
    lines = [f"{source} ({', '.join(dict.fromkeys(names))})" for source, names in by_source.items()]
    return [f"- top-1: as published, in percent: {'; '.join(lines)}."] if lines else []


def content(results: Sequence[Result], about: Mapping[str, str], peer: str | None) -> dict[str, object]:
    """Returns the content of the JSON file: the results, with the seconds of every repeat."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "about": dict(about),
        "peer": peer,
        "results": [_entry(result) for result in results],
    }


def _entry(result: Result) -> dict[str, object]:
    case = result.case
    known = {
        "images_per_second": result.images_per_second,
        "images_per_second_quartiles": result.quartiles,
        "seconds": result.timing and result.timing.seconds,
        "ratio_to_peer": result.ratio and {"median": result.ratio.median, "quartiles": result.ratio.quartiles},
        "kept_mib_per_image": result.kept,
        "peak_mib_per_image": result.peak,
        "largest_batch": result.largest_batch,
        "multiply_adds": result.macs,
        "parameters": result.parameters,
        "convolutions_alone_seconds": result.alone,
        "convolutions_alone_share": result.share and vars(result.share),
        "convolutions_alone_share_unknown": result.why_share_is_unknown,
        "published_top1": result.top1,
        "not_run": result.obstacle,
    }
    return {**vars(case), **known}


def write_tables(
    results: Sequence[Result], about: Mapping[str, str], peer: str | None, folder: str | Path
) -> list[Path]:
    """Writes ``table.md`` and ``table.json``, and returns their paths.

    Existing files of these names and an existing plot are moved to a new folder ``earlier_N`` first.

    Raises:
        UserError: if the folder cannot be written to.
    """
    texts = {
        "table.md": markdown(results, about, peer),
        "table.json": json.dumps(content(results, about, peer), indent=1) + "\n",
    }
    Earlier(folder).keep(*texts, PLOT)
    return write_files(folder, texts)
