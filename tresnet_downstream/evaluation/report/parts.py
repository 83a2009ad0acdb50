"""The parts of a report, independent of its file format: sections with notes, tables, figures and cards."""

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
        key: name of the column in CSV and JSON.
        title: header of the column.
        kind: format of the values: ``text``, ``percent``, ``count``, ``difference`` (percent with a sign),
            ``threshold`` (four digits) or ``interval`` (low, high).
        hint: explanation, shown as a tooltip of the header.
    """

    key: str
    title: str
    kind: str = "percent"
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Rows with a value for each column; None or NaN for an absent value.

    Attributes:
        columns: the columns from left to right.
        rows: the rows from top to bottom.
        classes: for each row the indices of its classes. A click on the row shows the image cards of these classes.
        of_classes: whether each row is one class; the page can then sort and search the table.
        chooses: whether a click on a row also selects the class that the curves show.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]
    classes: Sequence[Sequence[int]] = ()
    of_classes: bool = False
    chooses: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        name: name of its file, without suffix.
        title: heading of the figure.
        text: explanation of the figure.
        svg: the drawing.
        chart: key of the lines that the page's script redraws when a class is selected; empty for a fixed drawing.
        frame: coordinates of the data's (0, 0) and (1, 1) in the drawing: left, bottom, right, top.
        run: index of the run in the figure; None for all runs.
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
    """A rectangle in an image.

    Attributes:
        corners: left, top, width and height relative to the image, from 0 to 1.
        label: the class and, for a prediction, the score.
        kind: ``truth``, ``right``, ``wrong`` or ``missed``.
    """

    corners: tuple[float, float, float, float]
    label: str
    kind: str


@dataclass(frozen=True)
class Mark:
    """A prediction or a missed label of an image.

    Attributes:
        name: the class.
        value: its score, as text.
        kind: ``right``, ``wrong``, ``missed``, or ``other`` for a class that is neither predicted nor labelled.
    """

    name: str
    value: str
    kind: str


@dataclass(frozen=True)
class Card:
    """An image with all its predictions and missed labels.

    Attributes:
        image: name of the image file.
        jpeg: the small image; None if the file is missing or cannot be read.
        size: width and height in pixels.
        marks: predictions and missed labels, in the order in which they are listed.
        classes: indices of their classes, by which the page filters the cards.
        text: a line below the marks.
        boxes: boxes that are drawn over the image.
        maps: pairs of a class and the image with the explanation map of that class.
    """

    image: str
    jpeg: bytes | None
    size: tuple[int, int]
    marks: Sequence[Mark]
    classes: Sequence[int]
    text: str = ""
    boxes: Sequence[Box] = ()
    maps: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True)
class Gallery:
    """A group of cards.

    Attributes:
        name: prefix of the names of the cards' image files.
        title: heading; empty for none.
        text: explanation of the cards.
        cards: the cards in order.
    """

    name: str
    title: str
    text: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A section of a report: its part of the page, and its entries in ``scores.json`` and ``per_class.csv``.

    Attributes:
        title: the heading.
        notes: paragraphs below the heading.
        tables: tables below the notes.
        figures: figures below the tables.
        galleries: image cards below the figures.
        footnotes: paragraphs in small type at the end, such as how the numbers are computed.
        warnings: paragraphs that the command prints as well, such as that images are missing.
        folded: whether the section is at the end of the page and closed until the reader opens it.
        charts: plain data from which the page's script draws.
        numbers: entries of ``scores.json``.
        run_numbers: for each run, entries of its object in ``scores.json``.
        class_numbers: for each run, a record for each class with the key ``class``. Records of several sections are
            merged; they become ``per_class`` of ``scores.json`` and the rows of ``per_class.csv``.
        part: key of its charts in a report of several parts; set by the report.
        anchor: its anchor in the page; set by the report.
    """

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    galleries: Sequence[Gallery] = ()
    footnotes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    folded: bool = False
    charts: Mapping[str, object] = field(default_factory=dict)
    numbers: Mapping[str, object] = field(default_factory=dict)
    run_numbers: Sequence[Mapping[str, object]] = ()
    class_numbers: Sequence[Sequence[Mapping[str, object]]] = ()
    part: str = ""
    anchor: str = ""

    @property
    def is_narrow(self) -> bool:
        """Whether the page may show it beside another section, because it has only notes and at most one figure."""
        return len(self.figures) <= 1 and not self.tables and not self.galleries

    @property
    def paragraphs(self) -> list[str]:
        """The warnings, then the notes."""
        return [*self.warnings, *self.notes]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: title of the page.
        summary: the main score of each run, in one line.
        runs: names of the runs.
        sections: the sections from top to bottom.
        scores: content of ``scores.json``.
        charts: plain data from which the page's script draws, for each part; see ``page.js``.
    """

    title: str
    summary: str
    runs: Sequence[str]
    sections: Sequence[Section]
    scores: Mapping[str, Any]
    charts: Mapping[str, object] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """The warnings of all sections, each once."""
        return list(dict.fromkeys(text for section in self.sections for text in section.warnings))


def opening_class(ap: NDArray[np.float64], support: NDArray[np.int64]) -> int:
    """The class that the page shows first: of the classes with at least the median support, that with the lowest AP."""
    present = support > 0
    if not present.any():
        return 0
    common = present & (support >= np.median(support[present]))
    return int(np.argmin(np.where(common, ap, np.inf)))


def one_limit(limits: NDArray[np.float64]) -> float:
    """The threshold of all classes if it is the same for all; otherwise NaN."""
    return float(limits[0]) if len(limits) and (limits == limits[0]).all() else math.nan


def worst_first(ap: NDArray[np.float64]) -> list[int]:
    """Indices of the classes by ascending AP, those without AP last."""
    order: list[int] = np.argsort(np.where(np.isnan(ap), np.inf, ap), kind="stable").tolist()
    return order


def some_of(names: Sequence[str], most: int = 10) -> str:
    """The first names, and the number of the others.

    Examples:
        >>> some_of(["cat", "cow", "dog"], most=2)
        'cat, cow and 1 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def text_of(value: Any, kind: str) -> str:
    """The text of a value in a table; a dash for an absent value.

    Examples:
        >>> text_of(12.345, "percent"), text_of(1234, "count"), text_of(0.5, "difference")
        ('12.35', '1,234', '+0.50')
    """
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


def sort_key(value: object) -> float | str:
    """The sort key of a cell: a number, or text in lower case; empty for absent values, which come last."""
    if isinstance(value, tuple):  # an interval
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.casefold()
    return min(float(f"{value:.9g}"), 1e300)
