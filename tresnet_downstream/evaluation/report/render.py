"""Renders a report to the content of its files: a page, Markdown, scores, plots and images."""

import base64
import re
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.parts import Figure, Gallery, Report, sort_key, text_of
from tresnet_downstream.evaluation.report.small_images import with_boxes
from tresnet_downstream.evaluation.result_files import csv_text, json_text, plain
from tresnet_downstream.version import __version__

FORMAT, VERSION = "tresnet_downstream.report", 1
PLOTS, IMAGES = "plots", "images"
# Rows of a table of classes that are shown at first; the page's search finds the others.
_ROWS = 100
# In points: a wider drawing is not scaled down on a narrow screen.
_WIDE = 280
# Characters that Markdown, or HTML inside it, would interpret.
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$<>&])")


def texts(report: Report) -> dict[str, str]:
    """The text files of a report by name."""
    records = [{"run": run["name"], **record} for run in report.scores["runs"] for record in run["per_class"]]
    columns = list(dict.fromkeys(key for record in records for key in record))
    return {
        "report.html": page(report),
        "report.md": markdown(report),
        "scores.json": json_text({"format": FORMAT, "version": VERSION, **report.scores}),
        "per_class.csv": csv_text(columns, (plain(record) for record in records)),
    }


def figures(report: Report) -> dict[str, str]:
    """The plots of a report as SVG, by name."""
    return {f"{figure.name}.svg": figure.svg for section in report.sections for figure in section.figures}


def images(report: Report) -> dict[str, bytes]:
    """The images of a report as JPEG, by name."""
    contents: dict[str, bytes] = {}
    for section in report.sections:
        for gallery in section.galleries:
            for place, card in enumerate(gallery.cards):
                if (content := with_boxes(card)) is not None:
                    contents[image_name(gallery, place)] = content
                for number, (_, heat) in enumerate(card.maps):
                    contents[image_name(gallery, place, number)] = heat
    return contents


def image_name(gallery: Gallery, place: int, number: int | None = None) -> str:
    """The file of the image of a card, or of one of its maps."""
    return f"{gallery.name}_{place:02d}" + ("" if number is None else f"_map_{number}") + ".jpg"


def page(report: Report) -> str:
    """The page: one file that does not refer to other files."""
    templates = _environment(escape=True)

    def part(name: str) -> str:
        """The style and the script are part of the package, and are inserted into the page without escaping."""
        source, _, _ = templates.loader.get_source(templates, name)  # type: ignore[union-attr]
        return source

    def drawing(figure: Figure) -> str:
        # The template does not escape this, since the text inside is already escaped.
        return plots.in_page(figure.svg, figure.name)

    def is_wide(figure: Figure) -> bool:
        """Whether a narrow screen scrolls the drawing instead of scaling it down."""
        return plots.width_of(figure.svg) > _WIDE

    def data_uri(jpeg: bytes) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"

    templates.globals |= {
        "part": part,
        "drawing": drawing,
        "is_wide": is_wide,
        "data_uri": data_uri,
        "sort_key": sort_key,
        "most_rows": _ROWS,
        "mark_texts": _MARK_TEXTS,
    }
    charts = plain(report.charts)
    return templates.get_template("report.html").render(report=report, charts=charts, series=plots.SERIES)


# Signs before a prediction, so that its kind is not shown by colour alone.
_MARK_TEXTS: Mapping[str, str] = {
    "right": "\N{CHECK MARK}",
    "wrong": "\N{MULTIPLICATION X}",
    "missed": "missed",
    "other": "",
}


def markdown(report: Report) -> str:
    """The report as Markdown, with plots and images in files beside it."""
    templates = _environment(escape=False)
    templates.filters["md"] = lambda text: _MARKDOWN.sub(_entity, " ".join(str(text).split()))
    templates.globals["image_name"] = image_name
    return templates.get_template("report.md").render(report=report)


def _environment(escape: bool) -> Environment:
    templates = Environment(
        loader=PackageLoader("tresnet_downstream.evaluation.report"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shared: dict[str, object] = {"text_of": text_of, "version": __version__, "zip": zip}
    templates.globals |= {**shared, "PLOTS": PLOTS, "IMAGES": IMAGES}
    return templates


def _entity(match: re.Match[str]) -> str:
    """The numeric entity of a character, which neither Markdown nor HTML interprets."""
    return f"&#{ord(match[1])};"
