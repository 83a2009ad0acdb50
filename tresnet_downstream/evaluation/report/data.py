"""The input of sections: the runs of a report and the values that were computed from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup
from tresnet_downstream.evaluation.report.headline import Analysis
from tresnet_downstream.evaluation.report.options import Options

A = TypeVar("A", bound=Analysis)
_KIND_TITLES = {"bbox": "boxes", "segm": "masks"}


@dataclass(frozen=True, eq=False)
class ReportData(Generic[A]):
    """The runs of a report, all of one task and over the same images and classes.

    Attributes:
        task: ``multilabel``, ``single_label`` or ``detection``.
        kinds: the analyses of the runs for each kind of prediction. Detectors have ``bbox`` and perhaps ``segm``,
            classifiers only ``""``.
        options: the options of the report.
        folders: the run folders; empty if the runs were not read from folders.
        groups: head, middle and tail; empty if the training data is unknown.
        main: keys of the headline scores for which the comparison is also stated in words.
    """

    task: str
    kinds: Mapping[str, Sequence[A]]
    options: Options
    folders: Sequence[Path] = ()
    groups: Sequence[FrequencyGroup] = ()
    main: Sequence[str] = field(default=())

    @property
    def analyses(self) -> Sequence[A]:
        """The analyses of the runs for the first kind of prediction."""
        return next(iter(self.kinds.values()))

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        return [analysis.name for analysis in self.analyses]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.analyses[0].run.classes

    def of_kind(self, kind: str) -> str:
        """Ending of a heading that names the kind of prediction; empty if there is only one kind."""
        return f" of {_KIND_TITLES[kind]}" if len(self.kinds) > 1 else ""

    def kind_suffix(self, kind: str) -> str:
        """Ending of a file name that names the kind of prediction; empty if there is only one kind."""
        return f"_of_{_KIND_TITLES[kind]}" if len(self.kinds) > 1 else ""

    def of_run(self, place: int) -> str:
        """Ending of a heading that names the run; empty if there is only one run."""
        return f" of {self.analyses[place].name}" if len(self.analyses) > 1 else ""

    def run_suffix(self, place: int) -> str:
        """Ending of a file name that numbers the run; empty if there is only one run."""
        return f"_{place}" if len(self.analyses) > 1 else ""
