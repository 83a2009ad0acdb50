"""What a report is made of, whatever it is written as: sections of notes, tables, figures and pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in CSV and JSON.
        title: what stands above it.
        kind: how its values are written: ``text``, ``percent``, ``count``, ``difference`` (percent with a sign),
            ``threshold`` (four digits) or ``interval`` (from, to).
        hint: what it means, shown where the pointer rests on the title.
    """

    key: str
    title: str
    kind: str = "percent"
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values, one for each column; None or NaN where there is no value.

    Attributes:
        columns: from left to right.
        rows: from top to bottom.
        places: the class of each row, if each is one: then the page can sort and filter the table.
        chooses: whether the curves follow the class that is chosen in it.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    places: Sequence[int] = ()
    chooses: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        name: of its file, without suffix.
        title: what it shows.
        text: how to read it.
        svg: the drawing.
        chart: what the page's script redraws for the class that is chosen; nothing if empty.
        frame: where the data's (0, 0) and (1, 1) lie in the drawing: left, bottom, right, top.
        run: the run it shows, by its place; None for all of them.
    """

    name: str
    title: str
    text: str
    svg: str
    chart: str = ""
    frame: tuple[float, float, float, float] = (0, 0, 1, 1)
    run: int | None = None


@dataclass(frozen=True)
class Box:
    """A rectangle over a picture, in shares of its width and height.

    Attributes:
        corners: left, top, width, height.
        label: class, and score of a prediction.
        kind: ``truth``, ``right``, ``wrong`` or ``missed``.
    """

    corners: tuple[float, float, float, float]
    label: str
    kind: str


@dataclass(frozen=True)
class Picture:
    """A small picture with a caption.

    Attributes:
        image: the name of the image's file.
        jpeg: its content; None if the file is missing or cannot be read.
        size: width and height in pixels.
        title: the class, or what it is about.
        value: the score beside the title, as text.
        text: what else is to say.
        boxes: what is drawn over it.
        heat: the same picture with a map of where the network looked; None without.
    """

    image: str
    jpeg: bytes | None
    size: tuple[int, int]
    title: str
    value: str
    text: str
    boxes: Sequence[Box] = ()
    heat: bytes | None = None


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    name: str
    title: str
    text: str
    pictures: Sequence[Picture]
    large: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it.

    Attributes:
        title: the heading.
        notes: paragraphs.
        tables: then these,
        figures: these,
        galleries: and these.
    """

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    galleries: Sequence[Gallery] = ()


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        title: of the page.
        summary: the score or scores in one line.
        runs: names of the runs.
        sections: from top to bottom.
        scores: the numbers, for ``scores.json``.
        charts: what the page's script draws from, plain data; see ``page.js``.
    """

    title: str
    summary: str
    runs: Sequence[str]
    sections: Sequence[Section]
    scores: Mapping[str, Any]
    charts: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Which images could not be shown; a terminal should tell that as well."""
        return [note for section in self.sections if section.galleries for note in section.notes]


def opening_class(ap: NDArray, support: NDArray) -> int:
    """The class that a page opens with: the lowest AP of those with as many objects as most classes have."""
    present = support > 0
    if not present.any():
        return 0
    common = present & (support >= np.median(support[present]))
    return int(np.argmin(np.where(common, ap, np.inf)))


def one_limit(limits: NDArray) -> float:
    """The threshold of all classes if they have the same; NaN if not."""
    return float(limits[0]) if len(limits) and (limits == limits[0]).all() else math.nan


def worst_first(ap: NDArray) -> list[int]:
    """The classes by AP, the lowest first, those without one last."""
    return np.argsort(np.where(np.isnan(ap), np.inf, ap), kind="stable").tolist()


def some_of(names: Sequence[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def text_of(value: Any, kind: str) -> str:
    """A value of a table as people read it; a dash where there is none."""
    if kind == "interval":
        low, high = value if value is not None else (math.nan, math.nan)
        return DASH if math.isnan(low) else f"{_signed(low, False)} to {_signed(high, False)}"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    if kind == "percent":
        return f"{value:.2f}"
    if kind == "difference":
        return _signed(value, True)
    if kind == "count":
        return f"{value:,}"
    if kind == "threshold":
        return "never" if math.isinf(value) else f"{value:.4f}"
    return str(value)


def _signed(value: float, plus: bool) -> str:
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+" if plus else "") + text


def sort_key(value: Any) -> float | str:
    """What the page sorts a cell by: a number, or text in small letters; absent values come last."""
    if isinstance(value, tuple):  # an interval
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.casefold()
    return min(float(value), 1e300)
