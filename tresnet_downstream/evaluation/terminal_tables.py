"""Tables of scores for a terminal."""

import math
from collections.abc import Sequence

_MOST_ROWS, _WORST, _BEST = 30, 15, 5
_NAME_WIDTH = 32


def class_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Table lines with a row for each class, worst first; with more than 30 classes the 15 worst and the 5 best."""
    shortened = len(rows) > _MOST_ROWS
    lines = aligned(header, [*rows[:_WORST], *rows[-_BEST:]] if shortened else rows) if rows else []
    if shortened:
        left_out = len(rows) - _WORST - _BEST
        lines.insert(1 + _WORST, f"... {left_out:,} more classes; per_class.csv of the written scores lists all")
    return lines


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Lines with padded cells: the first column is aligned to the left, the others to the right.

    Examples:
        >>> print("\n".join(aligned(["class", "AP"], [["cat", "8.50"], ["dog", "97.00"]])))
        class     AP
        cat     8.50
        dog    97.00
    """
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]


def percent(value: float) -> str:
    """A score with two decimals; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def printable(name: str, width: int = _NAME_WIDTH) -> str:
    """A class name without line ends and control characters, of at most ``width`` characters."""
    name = "".join(character if character.isprintable() else "?" for character in name)
    return name if len(name) <= width else name[: width - 3] + "..."
