"""The findings of a check, as a table and as JSON."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tresnet_downstream.data_check.check import DataReport
from tresnet_downstream.data_check.findings import KINDS, SEVERITIES, Finding
from tresnet_downstream.evaluation.terminal_tables import aligned
from tresnet_downstream.files import whole_result

FORMAT, VERSION = "tresnet_downstream.data_check", 1
NOT_SEARCHED = (
    "similar images were not searched for, because the package ImageHash is not installed: "
    "pip install 'tresnet-downstream[check]'"
)
_WIDTH = 160


def table(report: DataReport, num_examples: int = 3) -> str:
    """The splits, the numbers of findings by kind and split with examples, and the totals, as text."""
    lines = [
        f"{listing.source.split}: {_counted(len(listing.images), 'image')} and "
        f"{_counted(len(listing.classes), 'class', 'es')} in "
        f"{_printable(listing.source.annotation_file)}"
        for listing in report.listings
    ]
    groups = _groups(report.findings)
    if groups:
        rows = [[kind, severity, split, f"{len(findings):,}"] for (severity, kind, split), findings in groups]
        head, *laid_out = aligned(("finding", "severity", "split", "count"), rows)
        lines += ["", head]
        for line, ((_, kind, _), findings) in zip(laid_out, groups, strict=True):
            lines.append(f"{line}  {KINDS[kind].meaning}")
            lines += [f"    {_example(finding)}" for finding in findings[:num_examples]]
    lines += ["", _totals(report)]
    if not report.near_duplicates:
        lines.append(NOT_SEARCHED)
    return "\n".join(lines)


def content(report: DataReport) -> dict[str, object]:
    """The report as plain data, with all findings."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "splits": [
            {
                "split": listing.source.split,
                "task": listing.source.task,
                "annotation_file": listing.source.annotation_file,
                "image_folder": listing.source.image_folder,
                "images": len(listing.images),
                "classes": list(listing.classes),
            }
            for listing in report.listings
        ],
        "files_read": report.num_files,
        "near_duplicates_searched": report.near_duplicates,
        "counts": _counts(report),
        "findings": [
            {
                key: getattr(finding, key)
                for key in ("kind", "severity", "split", "file", "place", "text", "image", "annotation")
            }
            for finding in report.findings
        ],
    }


def write_json(report: DataReport, path: str | Path) -> None:
    """Writes the report as JSON; another file of that name is moved to a folder ``earlier_N`` beside it.

    Raises:
        UserError: the file cannot be written.
    """
    with whole_result(path) as partial:
        partial.write_text(json.dumps(content(report), indent=1) + "\n", encoding="ascii")


def _counts(report: DataReport) -> dict[str, int]:
    return {name: sum(finding.severity == name for finding in report.findings) for name in SEVERITIES}


def _totals(report: DataReport) -> str:
    counts = ", ".join(_counted(count, name) for name, count in _counts(report).items())
    return f"{counts} in {_counted(report.num_files, 'image file')}"


def _counted(count: int, name: str, plural: str = "s") -> str:
    return f"{count:,} {name}{'' if count == 1 else plural}"


def _groups(findings: Sequence[Finding]) -> list[tuple[tuple[str, str, str], list[Finding]]]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    ranked = sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), order[one.kind], one.split))
    return [(key, list(group)) for key, group in groupby(ranked, lambda one: (one.severity, one.kind, one.split))]


def _example(finding: Finding) -> str:
    return _printable(f"{finding.place or finding.file}: {finding.text}")


def _printable(text: str) -> str:
    """Replaces control characters and lone surrogates, which file names may contain."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
