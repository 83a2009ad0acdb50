"""Draws the plots of a report with matplotlib, as SVG whose text is not converted to outlines."""

import io
import math
import re
import warnings
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from tresnet_downstream.evaluation.report.parts import text_of
from tresnet_downstream.evaluation.terminal_tables import printable

# Can be distinguished with colour blindness (Okabe and Ito, 2008).
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9")
INK, MUTED, GRID, PAPER = "#1c2026", "#646b75", "#d8dce2", "#fefefe"
# In the page these become CSS variables, which have other values in its dark mode.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"series-{place}" for place, colour in enumerate(SERIES)
}
# In inches. The page does not scale drawings, so that text has the same size in all of them.
_WIDTH, _HEIGHT = 3.83, 2.8
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tresnet_downstream",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "axes.labelsize": 9.0,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_UNUSED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)
_TITLE_WIDTH = 28
# Most characters of a name in a legend of one column and of two, and inches that a row of a legend takes.
_LEGEND_WIDTH, _HALF_WIDTH, _ROW = 40, 16, 0.2
# Greatest number of classes that are named beside their dots, if there is room; with more, the dots are small.
_NAMED, _MANY_DOTS = 30, 300
# The font of matplotlib's text; the page replaces its family.
_FONT = f'style="font: 9px sans-serif; fill: {INK}"'

Frame = tuple[float, float, float, float]


def curves(
    lines: Sequence[tuple[str, str, np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[str, str, float]] = (),
) -> tuple[str, Frame]:
    """Draws lines over the unit square, each with an id; returns the drawing and the position of the square in it.

    Args:
        lines: id, legend, x and y of each line.
        x_label: label of the x axis.
        y_label: label of the y axis.
        marks: id, legend and x of vertical lines.
    """
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _axes()
        for place, (name, legend, x, y) in enumerate(lines):
            x, y = _from_the_left(x, y) if x_label == "recall" else (x, y)
            # An empty line would have no path element, to which the page's script assigns points.
            points = (x, y) if len(x) else ([0, 0], [0, 0])
            (line,) = axes.plot(*points, color=SERIES[place % len(SERIES)], label=_plain(legend), clip_on=False)
            line.set(gid=name, solid_capstyle="projecting" if len(x) else "butt")
        for place, (name, legend, at) in enumerate(marks):
            style = ("dashed", "dotted")[place % 2]
            # Outside the plot if there is no such threshold.
            line = axes.axvline(
                at if math.isfinite(at) else 2.0, color=INK, linewidth=1.2, linestyle=style, label=_plain(legend)
            )
            line.set_gid(name)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x_label, ylabel=y_label)
        if len(lines) + len(marks) > 1:
            _legend(axes, above=True)
        drawing = _svg(canvas)
        return drawing, _frame(canvas, axes)


def scatter(
    names: Sequence[str],
    support: NDArray[np.int64],
    scores: Sequence[NDArray[np.float64]],
    classes: Sequence[str],
    support_label: str,
    score_label: str,
) -> str:
    """Draws a dot for each class and run: score against support. A click on a dot selects the class in the page.

    Names are written beside as many dots as there is room for, beginning with the lowest scores of the first run. Each
    dot has a tooltip with its name and numbers.

    Args:
        names: names of the runs.
        support: (C,) number of positives; classes without positives are left out.
        scores: for each run, (C,) scores in percent.
        classes: C names.
        support_label: label of the x axis.
        score_label: label of the y axis, without unit.
    """
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _axes()
        present = np.flatnonzero(support > 0)
        many = len(present) > _MANY_DOTS
        axes.set_xscale("log")
        if len(present):
            shown = np.concatenate([values[present] for values in scores])
            least, most = float(np.nanmin(shown)), float(np.nanmax(shown))
            margin = max(0.06 * (most - least), 0.5)
            axes.set_ylim(max(least - margin, -1.5), min(most + margin, 101.5))
            few, lots = int(support[present].min()), int(support[present].max())
            axes.set_xlim(few / (1.15 * (lots / few) ** 0.04), lots * 1.15 * (lots / few) ** 0.04)
        low, high = axes.get_xlim()
        # Fewer ticks if the axis spans many decades, so that their labels do not overlap.
        subs = (1, 2, 5) if high / low < 300 else (1,)
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=subs))
        if high / low < 8:
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.set(xlabel=support_label, ylabel=f"{score_label}, %")
        if len(names) > 1:
            # The legend's entries are empty lines, since the dots are drawn outside of matplotlib.
            for place, name in enumerate(names):
                color = SERIES[place % len(SERIES)]
                axes.plot([], [], linestyle="none", marker="o", markersize=4.5, color=color, label=_plain(name))
            _legend(axes, above=True)
        _svg(canvas)  # works out the layout
        height = canvas.bbox.height
        dots, texts = [], _Texts(axes.bbox.x0, height - axes.bbox.y1, axes.bbox.x1, height - axes.bbox.y0)
        order = present[np.argsort(scores[0][present], kind="stable")]
        for place, values in enumerate(scores):
            for c in order:
                x, y = axes.transData.transform((support[c], values[c]))
                hint = f"{classes[c]}: {score_label} {values[c]:.2f}, {support[c]:,} {support_label}"
                hint += f" ({names[place]})" if len(names) > 1 else ""
                dots.append(_dot(float(x), float(height - y), 2.0 if many else 3.2, place, int(c), hint))
                texts.avoid(float(x), float(height - y))
        for c in order[:_NAMED]:
            x, y = axes.transData.transform((support[c], scores[0][c]))
            texts.add(float(x), float(height - y), _plain(classes[c]))
        return _svg(canvas, "".join(dots) + texts.svg())


def lines(lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], x_label: str, y_label: str) -> str:
    """Draws lines on axes that fit the data: legend, x and y of each."""
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _axes()
        for place, (legend, x, y) in enumerate(lines):
            color = SERIES[place % len(SERIES)]
            (line,) = axes.plot(x, y, color=color, linewidth=1.5, label=_plain(legend, _LEGEND_WIDTH))
            if len(x) < 40:
                line.set(marker="o", markersize=3.5)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_xlim(left=0)
        axes.margins(x=0.02)
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        if y_label == "learning rate":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            _legend(axes, above=True)
        return _svg(canvas)


# The smallest share on the distribution's scale.
_LEAST_SHARE = 1e-4


def log_height(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights from 0 to 1 of shares on a logarithmic scale from 0.01% to 100%; 0 for smaller shares."""
    decades = -math.log10(_LEAST_SHARE)
    return 1 + np.log10(np.maximum(shares, _LEAST_SHARE)) / decades


def outline(heights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The outline of a histogram over [0, 1] with bins of equal width: x and y of its corners."""
    edges = np.linspace(0, 1, len(heights) + 1)
    return np.repeat(edges, 2), np.concatenate([[0], np.repeat(heights, 2), [0]])


def distribution(shares: Sequence[NDArray[np.float64]], legends: Sequence[str]) -> tuple[str, Frame]:
    """Draws outlines of score histograms, with the ids ``kind-0`` and ``kind-1``; returns the drawing and its frame.

    Args:
        shares: for each kind, (B,) shares of its entries in bins of equal width over [0, 1].
        legends: legend of each kind.
    """
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _axes()
        for place, (values, legend) in enumerate(zip(shares, legends, strict=True)):
            x, y = outline(log_height(values))
            (line,) = axes.plot(x, y, color=SERIES[place], linewidth=1.5, label=_plain(legend), clip_on=False)
            line.set_gid(f"kind-{place}")
        ticks = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
        axes.set_yticks(log_height(np.array(ticks)), [f"{100 * share:g}%" for share in ticks])
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="share of entries")
        _legend(axes, above=True)
        drawing = _svg(canvas)
        return drawing, _frame(canvas, axes)


def reliability_diagram(
    probability: np.ndarray,
    frequency: np.ndarray,
    count: np.ndarray,
    labels: tuple[str, str, str] = ("share present", "probability", "entries"),
) -> str:
    """Draws the frequency of positives against the predicted probability, and the number of entries by probability."""
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH, _HEIGHT + 0.4), dpi=72, layout="constrained")
        axes, below = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="dashed", label="calibrated")
        filled = count > 0
        axes.plot(
            probability[filled],
            frequency[filled],
            color=SERIES[0],
            marker="o",
            markersize=4,
            label="this run",
            clip_on=False,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel=labels[0])
        _legend(axes)
        edges = np.linspace(0, 1, len(count) + 1)
        below.bar(edges[:-1], np.maximum(count, 0.5), np.diff(edges), align="edge", color=SERIES[0], linewidth=0)
        below.set(yscale="log", ylim=(0.5, None), xlabel=labels[1], ylabel=labels[2])
        return _svg(canvas)


def matrix(
    counts: NDArray[np.int64], names: Sequence[str], row_label: str, column_label: str, classes: Sequence[int] = ()
) -> str:
    """Draws a matrix of counts; larger counts are darker. A click on a cell selects both classes in the page.

    Args:
        counts: (K, K) counts.
        names: names of the K classes.
        row_label: label of the y axis.
        column_label: label of the x axis.
        classes: indices of the K classes; without them, cells cannot be clicked.
    """
    with matplotlib.rc_context(_STYLE):
        side = max(2.6, 0.2 * len(names) + 1.2)
        canvas = Canvas(figsize=(side + 0.2, side), dpi=72, layout="constrained")
        axes = canvas.add_subplot()
        axes.grid(False)
        ticks, labels = np.arange(len(names)), [_plain(name) for name in names]
        axes.set_xticks(ticks, labels, rotation=90, parse_math=False)
        axes.set_yticks(ticks, labels, parse_math=False)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel=column_label, ylabel=row_label)
        axes.set_aspect("equal")
        _svg(canvas)  # works out the layout
        most = max(1, int(counts.max(initial=0)))
        cells = []
        for (row, column), value in np.ndenumerate(counts):
            if value:
                (left, top), (right, bottom) = axes.transData.transform(
                    [(column - 0.47, row - 0.47), (column + 0.47, row + 0.47)]
                )
                filters = f' data-classes="{classes[row]} {classes[column]}"' if len(classes) else ""
                hint = escape(f"{row_label}: {names[row]}; {column_label}: {names[column]}; {value:,}")
                x, y = (left + right) / 2, canvas.bbox.height - (top + bottom) / 2
                cells.append(
                    f'<g class="cell"{filters}><title>{hint}</title><rect x="{left:.2f}" '
                    f'y="{canvas.bbox.height - top:.2f}" width="{right - left:.2f}" height="{top - bottom:.2f}" '
                    f'fill="{SERIES[1]}" fill-opacity="{0.15 + 0.75 * value / most:.2f}"/>'
                    f'<text x="{x:.2f}" y="{y + 3.2:.2f}" text-anchor="middle" {_FONT}>{_short(int(value))}</text></g>'
                )
        return _svg(canvas, "".join(cells))


def bars(names: Sequence[str], values: Sequence[Sequence[float]], legends: Sequence[str], label: str) -> str:
    """Draws groups of horizontal bars with their values: a group for each name, a bar in it for each run."""
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(
            figsize=(_WIDTH, max(1.8, 0.36 * len(names) * max(1, 0.6 * len(values)) + 0.8)),
            dpi=72,
            layout="constrained",
        )
        axes = canvas.add_subplot()
        height = 0.8 / len(values)
        for place, (series, legend) in enumerate(zip(values, legends, strict=True)):
            drawn = axes.barh(
                np.arange(len(names)) + (place - (len(values) - 1) / 2) * height,
                np.nan_to_num(np.asarray(series, float)),
                0.9 * height,
                color=SERIES[place % len(SERIES)],
                label=_plain(legend),
            )
            texts = [text_of(value, "percent") for value in series]
            axes.bar_label(drawn, texts, padding=3)
        axes.set_yticks(np.arange(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.14)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        if len(values) > 1:
            _legend(axes)
        return _svg(canvas)


def _from_the_left(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extends the curve to recall 0 with the precision at the first positive."""
    if not len(recall):
        return recall, precision
    return np.concatenate([[0], recall]), np.concatenate([precision[:1], precision])


def width_of(svg: str) -> float:
    """The width of a drawing in points; 0 if it is not stated."""
    width = re.search(r'<svg [^>]*?width="([\d.]+)pt"', svg)
    return float(width[1]) if width else 0.0


def in_page(svg: str, name: str) -> str:
    """The drawing as part of a page: colours become the page's variables, ids become unique, text is unchanged."""

    def adapted(tag: re.Match[str]) -> str:
        text = tag[0]
        for colour, variable in VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
        return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)

    return re.sub(r"<[^>]+>", adapted, svg)


def _axes() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(_WIDTH, _HEIGHT), dpi=72, layout="constrained")
    return canvas, canvas.add_subplot()


def _legend(axes: Axes, above: bool = False) -> None:
    """Adds the legend. Above the axes, it has one column if a name is long, and the drawing grows with its rows."""
    place: dict[str, object] = {}
    if above:
        names = axes.get_legend_handles_labels()[1]
        columns = 2 if max(map(len, names)) <= _HALF_WIDTH else 1
        rows = -(-len(names) // columns)
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.set_figheight(_HEIGHT + _ROW * max(0, rows - 2))
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns, "borderaxespad": 0.3}
    for text in axes.legend(**place).get_texts():
        text.set_parse_math(False)


def _plain(name: str, width: int = _TITLE_WIDTH) -> str:
    """A class or run name, shortened for a plot. A leading underscore would hide it from matplotlib's legend."""
    short = printable(name, width)
    return f"\u200b{short}" if short.startswith("_") else short


class _Texts:
    """Places names beside dots without covering dots or other names. Names without room are left out."""

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self._edges = left, top, right, bottom
        self._taken: list[tuple[float, float, float, float]] = []
        self._texts: list[str] = []

    def avoid(self, x: float, y: float, radius: float = 2.6) -> None:
        """Reserves the place of a dot."""
        self._taken.append((x - radius, y - radius, x + radius, y + radius))

    def add(self, x: float, y: float, name: str) -> None:
        """Writes a name beside the dot at (x, y)."""
        width, height = 5.0 * len(name), 9.0
        for left, middle in (
            (x + 5, y),
            (x - 5 - width, y),
            (x - width / 2, y - 9),
            (x - width / 2, y + 9),
            (x + 4, y - 8),
            (x + 4, y + 8),
            (x - 4 - width, y - 8),
            (x - 4 - width, y + 8),
        ):
            box = (left, middle - height / 2, left + width, middle + height / 2)
            inside = box[0] >= self._edges[0] and box[2] <= self._edges[2] + 4
            inside &= box[1] >= self._edges[1] - 4 and box[3] <= self._edges[3] + 2
            if inside and not any(_overlap(box, other) for other in self._taken):
                self._taken.append(box)
                place = f'x="{left:.2f}" y="{middle + 3.2:.2f}"'
                self._texts.append(f"<text {place} {_FONT}>{escape(name)}</text>")
                return

    def svg(self) -> str:
        """The SVG of the names."""
        return "".join(self._texts)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _dot(x: float, y: float, radius: float, series: int, c: int, hint: str) -> str:
    return (
        f'<circle class="dot" data-classes="{c}" cx="{x:.2f}" cy="{y:.2f}" r="{radius}" '
        f'fill="{SERIES[series % len(SERIES)]}" fill-opacity="0.75"><title>{escape(hint)}</title></circle>'
    )


def _short(count: int) -> str:
    """A count in up to four characters."""
    return f"{count}" if count < 1000 else f"{count / 1000:.0f}k"


def _frame(canvas: Canvas, axes: Axes) -> Frame:
    """The coordinates of (0, 0) and (1, 1). Call it after drawing, which computes the layout."""
    (left, bottom), (right, top) = axes.transData.transform([(0, 0), (1, 1)])
    height = canvas.bbox.height
    return float(left), float(height - bottom), float(right), float(height - top)


def _svg(canvas: Canvas, over: str = "") -> str:
    """The figure as SVG, with other SVG drawn over it."""
    file = io.StringIO()
    with warnings.catch_warnings():
        # The reader's browser draws the text with its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasSVG(canvas).print_svg(file, metadata={"Date": None})
    drawing = _UNUSED.sub("", file.getvalue()).strip()
    return drawing.removesuffix("</svg>") + f"{over}</svg>\n"
