"""Registers the sections of a report. Each section is a function."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Section

TASKS = ("multilabel", "single_label", "detection")
Made = Section | Sequence[Section] | None


class MakesSection(Protocol):
    """Type of functions that compute a section.

    A function returns one :class:`~tresnet_downstream.evaluation.report.parts.Section`, several, or None if it has
    nothing to show.
    """

    def __call__(self, data: ReportData[Any], /) -> Made:
        """Computes the section from the runs of the report."""


F = TypeVar("F", bound=Callable[..., Made])


@dataclass(frozen=True)
class Registered:
    """A registered section.

    Attributes:
        name: name of the section.
        make: function that computes it.
        tasks: tasks for which it is computed.
        place: sections are sorted by this number.
    """

    name: str
    make: MakesSection
    tasks: Collection[str]
    place: float


SECTIONS: dict[str, Registered] = {}


def section(*tasks: str, place: float = 75) -> Callable[[F], F]:
    """Decorator that registers a function as a section of reports.

    To add a section of your own, write such a function in one file, and name the file with ``--import``;
    ``docs/extending/report_section.md`` has an example. A function with the name of an existing section replaces it.

    Args:
        tasks: tasks for which the section is computed: ``multilabel``, ``single_label``, ``detection``; all by default.
        place: sections are sorted by this number. The built-in sections have 10 (scores) to 70 (images with mistakes),
            80 (training) and 100 (where the scores come from).

    Raises:
        UserError: if there is no such task.

    Examples:
        >>> @section("multilabel", "single_label")
        ... def number_of_images(data):
        ...     return Section("Images", notes=[f"{len(data.analyses[0].run.images):,} images were scored."])
        >>> SECTIONS.pop("number_of_images").tasks
        ('multilabel', 'single_label')
    """
    if unknown := [task for task in tasks if task not in TASKS]:
        raise UserError(f"section: there is no task {unknown[0]!r}; the tasks are {', '.join(TASKS)}")

    def register(make: F) -> F:
        SECTIONS[make.__name__] = Registered(make.__name__, make, tasks or TASKS, place)
        return make

    return register


def sections_of(data: ReportData[Any]) -> list[Section]:
    """All sections of a report, in order.

    Raises:
        UserError: if a registered function returns something other than sections.
    """
    sections = []
    for each in sorted(SECTIONS.values(), key=lambda each: each.place):
        if data.task not in each.tasks:
            continue
        made = each.make(data)
        several = [made] if isinstance(made, Section) else list(made or ())
        if not all(isinstance(one, Section) for one in several):
            raise UserError(f"section {each.name}: must return a Section, several in a list, or None")
        sections += several
    return sections
