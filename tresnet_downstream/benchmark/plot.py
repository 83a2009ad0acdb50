"""Plots speed against published accuracy."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from tresnet_downstream.benchmark.measure import Result
from tresnet_downstream.benchmark.networks import network_named
from tresnet_downstream.files import whole_file

# People with red-green colour blindness can distinguish these colours (Okabe and Ito, 2008).
_OURS, _OTHERS = "#0072b2", "#d55e00"
# Possible offsets of a name from its point, in typographic points, in order of preference.
_PLACES = [
    *((0, 7), (0, -14), (8, -3), (-8, -3)),
    *((x, y) for y in (16, -22, 28, -34, 40, -46) for x in (14, -14)),
    *((x, y) for y in (8, -12, 20, -24) for x in (40, -40, 70, -70)),
]
_MARKERS = {"eager": "o", "compiled": "^", "fused": "D"}


def draw_speed_accuracy(results: Sequence[Result], path: str | Path) -> bool:
    """Draws one plot for each group, side by side, and writes a PNG file.

    Only results whose network has a published score at the measured image size are drawn.

    Args:
        results: results of `measure`.
        path: path of the PNG file.

    Returns:
        whether there was a result to draw. If there was none, no file is written.
    """
    drawn = [result for result in results if result.images_per_second and result.top1]
    if not drawn:
        return False
    panels = [(title, list(members)) for title, members in groupby(drawn, key=lambda result: result.group)]
    figure = Figure(figsize=(7 * len(panels), 5.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, members) in zip(all_axes, panels, strict=True):
        _panel(axes, title, members)
    for axes, (_, members) in zip(all_axes, panels, strict=True):
        _label(canvas, axes, members)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        canvas.print_png(partial)
    return True


def _panel(axes: Axes, title: str, results: Sequence[Result]) -> None:
    by_kind: dict[tuple[bool, str], list[Result]] = {}
    for result in results:
        by_kind.setdefault((network_named(result.case.network).ours, result.case.form), []).append(result)
    for (ours, form), members in by_kind.items():
        colour = _OURS if ours else _OTHERS
        _points(axes, members, f"{'this toolkit' if ours else 'others'}, {form}", colour, _MARKERS[form])
        _join_families(axes, members, colour)
    axes.set(title=title, xlabel="images/s", ylabel="published top-1 on ImageNet, percent")
    axes.margins(x=0.18, y=0.14)
    axes.set_xlim(left=0)
    axes.grid(color="#d8dce2", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _point(result: Result) -> tuple[float, float]:
    """Returns the images/s and the published top-1 score of a result that has both."""
    return result.images_per_second or 0.0, result.top1 or 0.0


def _points(axes: Axes, results: Sequence[Result], legend: str, colour: str, marker: str) -> None:
    """Draws the medians, with bars from the first to the third quartile."""
    speeds, scores = np.array([_point(result) for result in results]).T
    quartiles = np.array([result.quartiles for result in results]).T
    axes.errorbar(
        speeds,
        scores,
        # A median may lie outside of the quartiles by a rounding error.
        xerr=abs(quartiles - speeds),
        fmt=marker,
        color=colour,
        elinewidth=0.9,
        zorder=3,
        label=legend,
    )


def _label(canvas: FigureCanvasAgg, axes: Axes, results: Sequence[Result]) -> None:
    """Writes the name of each point at the first of the offsets that overlap the fewest other names and points."""
    canvas.figure.draw_without_rendering()
    points = [axes.transData.transform(_point(result)) for result in results]
    occupied = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    # Points are processed from top to bottom, so that their names spread to the same side.
    for place in sorted(range(len(results)), key=lambda place: (-points[place][1], points[place][0])):
        result = results[place]
        name = axes.annotate(
            result.case.label,
            _point(result),
            xytext=_PLACES[0],
            textcoords="offset points",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#646b75", "shrinkA": 0, "shrinkB": 3},
        )
        boxes = []
        for offset in _PLACES:
            _move(name, offset)
            name.update_positions(canvas.get_renderer())
            boxes.append(Text.get_window_extent(name))
        overlaps = [sum(box.overlaps(other) for other in occupied) for box in boxes]
        best = overlaps.index(min(overlaps))
        _move(name, _PLACES[best])
        occupied.append(boxes[best])


def _move(name: Annotation, offset: tuple[int, int]) -> None:
    side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    name.set(position=offset, horizontalalignment=side)


def _join_families(axes: Axes, results: Sequence[Result], colour: str) -> None:
    by_family: dict[str, list[Result]] = {}
    for result in results:
        if family := network_named(result.case.network).family:
            by_family.setdefault(family, []).append(result)
    for members in by_family.values():
        points = sorted((_point(result) for result in members), key=itemgetter(0))
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.9, alpha=0.6)
