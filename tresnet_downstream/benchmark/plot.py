"""Speed against published accuracy, as a picture."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tresnet_downstream.benchmark.measure import Result
from tresnet_downstream.benchmark.networks import network_named
from tresnet_downstream.files import whole_file

# Told apart also by those who see no red or green (Okabe and Ito, 2008).
_COLOURS = {"eager": "#0072b2", "compiled": "#d55e00", "fused": "#009e73"}
_OURS, _OTHERS = "o", "s"


def draw_speed_accuracy(results: Sequence[Result], path: str | Path) -> bool:
    """Draws one plot for each group side by side, as PNG.

    Only rows whose network has a published score at the size that was measured are drawn.

    Args:
        results: of `measure`.
        path: the file.

    Returns:
        whether there was a row to draw; without one no file is written.
    """
    drawn = [result for result in results if result.images_per_second and result.top1]
    if not drawn:
        return False
    panels = [(title, list(members)) for title, members in groupby(drawn, key=lambda result: result.group)]
    figure = Figure(figsize=(6.4 * len(panels), 4.6), layout="constrained")
    for axes, (title, members) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, title, members)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        FigureCanvasAgg(figure).print_png(partial)
    return True


def _panel(axes: Any, title: str, results: Sequence[Result]) -> None:
    forms = [form for form in _COLOURS if any(result.case.form == form for result in results)]
    for form in forms:
        members = [result for result in results if result.case.form == form]
        for ours, marker in ((True, _OURS), (False, _OTHERS)):
            of_kind = [result for result in members if network_named(result.case.network).ours == ours]
            axes.scatter(
                [result.images_per_second for result in of_kind],
                [result.top1 for result in of_kind],
                color=_COLOURS[form],
                marker=marker,
                zorder=3,
                label=f"{form}, {'this toolkit' if ours else 'others'}" if of_kind else None,
            )
        _join_families(axes, members, _COLOURS[form])
    _label(axes, results)
    axes.set(title=title, xlabel="images/s", ylabel="published top-1 on ImageNet, percent")
    axes.margins(x=0.18, y=0.14)
    axes.grid(color="#d8dce2", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _label(axes: Any, results: Sequence[Result]) -> None:
    """Names the points; where several stand on one height, above and below in turn."""
    by_height = sorted(results, key=lambda result: (result.top1 or 0, result.images_per_second or 0))
    for _, members in groupby(by_height, key=lambda result: result.top1):
        for place, result in enumerate(members):
            axes.annotate(
                result.case.label,
                (result.images_per_second, result.top1),
                xytext=(0, 7 if place % 2 == 0 else -14),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )


def _join_families(axes: Any, results: Sequence[Result], colour: str) -> None:
    by_family: dict[str, list[Result]] = {}
    for result in results:
        if family := network_named(result.case.network).family:
            by_family.setdefault(family, []).append(result)
    for members in by_family.values():
        members.sort(key=lambda result: result.images_per_second or 0)
        points = [(result.images_per_second, result.top1) for result in members]
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.9, alpha=0.6)
