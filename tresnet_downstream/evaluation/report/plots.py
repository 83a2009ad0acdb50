"""The plots of a report, drawn by matplotlib as SVG whose text stays text."""

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from tresnet_downstream.evaluation.report.parts import text_of
from tresnet_downstream.evaluation.text import printable

# Told apart also by those who see no red or green (Okabe and Ito, 2008).
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9")
INK, MUTED, GRID, PAPER = "#1c2026", "#646b75", "#d8dce2", "#fefefe"
# In the page these follow its colours, which are others where it is dark.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"series-{place}" for place, colour in enumerate(SERIES)
}
_WIDTH, _HEIGHT = 5.2, 3.4
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
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_UNUSED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)
_TITLE_WIDTH = 28
# Classes named in a plot of all.
_NAMED = 6

Frame = tuple[float, float, float, float]


def curves(
    lines: Sequence[tuple[str, str, NDArray, NDArray]],
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[str, str, float]] = (),
) -> tuple[str, Frame]:
    """Lines over the unit square, each findable by its id, and where that square lies in the drawing.

    Args:
        lines: id, legend, x and y of each.
        x_label: below.
        y_label: at the side.
        marks: id, legend and x of vertical lines.
    """
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _axes()
        for place, (name, legend, x, y) in enumerate(lines):
            x, y = _from_the_left(x, y) if x_label == "recall" else (x, y)
            # Without a point there would be no path that the page's script could give points to.
            given = (x, y) if len(x) else ([0, 0], [0, 0])
            (line,) = axes.plot(*given, color=SERIES[place % len(SERIES)], label=_plain(legend), clip_on=False)
            line.set(gid=name, solid_capstyle="projecting" if len(x) else "butt")
        for place, (name, legend, at) in enumerate(marks):
            style = ("dashed", "dotted")[place % 2]
            # Outside the plot where there is no such threshold.
            line = axes.axvline(
                at if math.isfinite(at) else 2.0, color=INK, linewidth=1.2, linestyle=style, label=_plain(legend)
            )
            line.set_gid(name)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x_label, ylabel=y_label)
        if len(lines) + len(marks) > 1:
            _legend(axes, above=True)
        drawing = _svg(canvas)
        # Only now: the layout is worked out anew as the drawing is written.
        (left, bottom), (right, top) = axes.transData.transform([(0, 0), (1, 1)])
        height = canvas.bbox.height
        return drawing, (float(left), float(height - bottom), float(right), float(height - top))


def ap_against_support(
    names: Sequence[str],
    support: NDArray,
    ap: Sequence[NDArray],
    classes: Sequence[str],
    what: str,
    score: str = "AP",
) -> str:
    """A dot for each class and run; the classes with the lowest AP of the first run are named."""
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _axes()
        present = np.flatnonzero(support > 0)
        many = len(present) > 1000
        for place, (name, values) in enumerate(zip(names, ap, strict=True)):
            axes.plot(
                support[present],
                values[present],
                linestyle="none",
                marker="o",
                markersize=2 if many else 4.5,
                alpha=0.35 if many else 0.75,
                markeredgewidth=0,
                color=SERIES[place % len(SERIES)],
                label=_plain(name),
                rasterized=many,
            )
        lowest = present[np.argsort(ap[0][present], kind="stable")[:_NAMED]]
        middle = np.median(np.log(support[present])) if len(present) else 0.0
        named: list[tuple[float, float]] = []
        for c in lowest:
            x, y = math.log10(support[c]), float(ap[0][c])
            # One name where several would lie upon one another.
            if any(abs(y - other_y) < 6 and abs(x - other_x) < 1 for other_x, other_y in named):
                continue
            named.append((x, y))
            left = math.log(support[c]) > middle
            axes.annotate(
                _plain(classes[c]),
                (support[c], y),
                xytext=(-5 if left else 5, 3),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=8,
                parse_math=False,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        least = min((float(np.min(values[present])) for values in ap if len(present)), default=0.0)
        # Good classes would lie on one line below the upper edge.
        axes.set(ylim=(max(0, 10 * (least // 10) - 10) if least > 50 else 0, 102), xlabel=what, ylabel=f"{score}, %")
        if len(names) > 1:
            _legend(axes, above=True)
        return _svg(canvas)


def reliability_diagram(
    probability: NDArray,
    frequency: NDArray,
    count: NDArray,
    labels: tuple[str, str, str] = ("share present", "probability", "entries"),
) -> str:
    """How often entries are present against how likely they were said to be, and how many there are of each."""
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH, _HEIGHT + 0.5), layout="constrained")
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


def matrix(counts: NDArray, names: Sequence[str], row_label: str, column_label: str) -> str:
    """A square of counts, the darker the more."""
    with matplotlib.rc_context(_STYLE):
        side = max(2.6, 0.24 * len(names) + 1.3)
        canvas = Canvas(figsize=(side + 0.4, side), layout="constrained")
        axes = canvas.add_subplot()
        axes.grid(False)
        most = max(1, int(counts.max(initial=0)))
        for (row, column), value in np.ndenumerate(counts):
            if value:
                # Rectangles stay sharp, and carry their number where a reader's program speaks it.
                axes.add_patch(
                    matplotlib.patches.Rectangle(
                        (column - 0.46, row - 0.46), 0.92, 0.92, color=SERIES[1], alpha=0.15 + 0.85 * value / most, lw=0
                    )
                )
                if len(names) <= 24:
                    axes.text(column, row, f"{value}", ha="center", va="center", fontsize=7)
        ticks, labels = np.arange(len(names)), [_plain(name) for name in names]
        axes.set_xticks(ticks, labels, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(ticks, labels, fontsize=8, parse_math=False)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel=column_label, ylabel=row_label)
        axes.set_aspect("equal")
        return _svg(canvas)


def bars(names: Sequence[str], values: Sequence[Sequence[float]], legends: Sequence[str], label: str) -> str:
    """Horizontal bars in groups: one group for each name, one bar in it for each run, with its value."""
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(
            figsize=(_WIDTH, max(1.8, 0.42 * len(names) * max(1, 0.6 * len(values)) + 0.8)), layout="constrained"
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
            axes.bar_label(drawn, texts, padding=3, fontsize=8)
        axes.set_yticks(np.arange(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.14)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        if len(values) > 1:
            _legend(axes)
        return _svg(canvas)


def _from_the_left(recall: NDArray, precision: NDArray) -> tuple[NDArray, NDArray]:
    """Down to recall 0 the precision is that of the first positive found."""
    if not len(recall):
        return recall, precision
    return np.concatenate([[0], recall]), np.concatenate([precision[:1], precision])


def in_page(svg: str, name: str) -> str:
    """The drawing as part of a page: colours that follow it, ids that are nobody else's; its text stays as it is."""

    def adapted(tag: re.Match[str]) -> str:
        text = tag[0]
        for colour, variable in VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
        return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)

    return re.sub(r"<[^>]+>", adapted, svg)


def _axes() -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(_WIDTH, _HEIGHT), dpi=72, layout="constrained")
    return canvas, canvas.add_subplot()


def _legend(axes: Any, above: bool = False) -> None:
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2, "borderaxespad": 0.3} if above else {}
    for text in axes.legend(**place).get_texts():
        text.set_parse_math(False)


def _plain(name: str) -> str:
    """A class or run name that fits beside a plot; a leading underscore would hide it from the legend."""
    short = printable(name) if len(name) <= _TITLE_WIDTH else printable(name[: _TITLE_WIDTH - 3]) + "..."
    return f"\u200b{short}" if short.startswith("_") else short


def _svg(canvas: Canvas) -> str:
    file = io.StringIO()
    with warnings.catch_warnings():
        # The reader's program has the fonts, and draws the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasSVG(canvas).print_svg(file, metadata={"Date": None})
    return _UNUSED.sub("", file.getvalue()).strip() + "\n"
