"""Divides the classes of a report into head, middle and tail by their numbers of training images."""

from collections.abc import Sequence
from dataclasses import replace

from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup, frequency_groups
from tresnet_downstream.evaluation.outcomes import MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.report.options import Options


def groups_of(runs: Sequence[MultilabelRun] | Sequence[SingleLabelRun], options: Options) -> list[FrequencyGroup]:
    """Head, middle and tail for all runs, by the training data of the first run that states it."""
    counts = next((run.training for run in runs if run.training is not None), None)
    if counts is not None and options.frequency_cutoffs is not None:
        counts = replace(counts, cutoffs=options.frequency_cutoffs)
    return frequency_groups(counts, runs[0].classes)
