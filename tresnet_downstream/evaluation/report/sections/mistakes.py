"""Images with mistakes of classifiers, each with all its predictions and labels."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

import numpy as np

from tresnet_downstream.evaluation.mistakes import Mistake, worst_images, worst_mistakes
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.maps_shown import MapsShown
from tresnet_downstream.evaluation.report.parts import Card, Gallery, Mark, Section
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.small_images import SmallImages, small_images_of
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis

T = TypeVar("T")
# Number of images of a run: a number that keeps the page small enough to be mailed.
_IMAGES = 48
# Number of marks of a kind on a card, and of most probable classes of an image with one label.
_MARKS, _LIKELY = 6, 5
_MULTILABEL = (
    "The images with the most confident false positives and false negatives, and at least one image for each class if "
    "there is room. Many wrong predictions are labels that are missing in the data: check the image first. Missed "
    "objects are often small or hidden, or their label is wrong."
)
_SINGLE_LABEL = (
    "The wrong predictions with the highest confidence, and those whose label has the lowest probability. Often the "
    "label is wrong, or the image shows both classes: check the image first."
)


@section("multilabel", place=70)
def multilabel_mistakes(data: ReportData[MultilabelAnalysis]) -> Section:
    """Chooses the worst mistakes, as image cards and as entries of ``scores.json``."""
    galleries, warnings, numbers = [], [], []
    for place, analysis in enumerate(data.analyses):
        run = analysis.run
        arguments = (run.probabilities, run.targets, analysis.limits, run.images)
        false_positives, false_negatives = worst_mistakes(*arguments)
        of_each_class = worst_mistakes(*arguments, count=len(run.classes), per_class=1)
        numbers.append(
            {
                "false_positives": [_as_json(analysis, mistake) for mistake in false_positives],
                "false_negatives": [_as_json(analysis, mistake) for mistake in false_negatives],
            }
        )
        listed = [*false_positives, *false_negatives]
        images = _covering(_in_turn(false_positives, false_negatives), _in_turn(*of_each_class))
        small, maps = small_images_of(run, data.options), MapsShown(run.explanations)
        cards = [
            _multilabel_card(analysis, image, small, maps, [m.label for m in listed if m.image == image])
            for image in images
        ]
        galleries.append(Gallery(f"images{data.run_suffix(place)}", data.of_run(place), maps.text, cards))
        warnings += [text for text in (small.note(), maps.note()) if text]
    return _section(_MULTILABEL, galleries, warnings, numbers)


@section("single_label", place=70)
def single_label_mistakes(data: ReportData[SingleLabelAnalysis]) -> Section:
    """Chooses the worst mistakes, as image cards."""
    galleries, warnings = [], []
    for place, analysis in enumerate(data.analyses):
        run = analysis.run
        images = list(dict.fromkeys(_in_turn(*worst_images(analysis.scores))))[:_IMAGES]
        small, maps = small_images_of(run, data.options), MapsShown(run.explanations)
        cards = [_single_label_card(analysis, image, small, maps) for image in images]
        galleries.append(Gallery(f"images{data.run_suffix(place)}", data.of_run(place), maps.text, cards))
        warnings += [text for text in (small.note(), maps.note()) if text]
    return _section(_SINGLE_LABEL, galleries, warnings, [])


def _section(
    text: str,
    galleries: list[Gallery],
    warnings: list[str],
    numbers: Sequence[Mapping[str, object]],
) -> Section:
    notes = [text] if any(gallery.cards for gallery in galleries) else ["No image has a mistake."]
    galleries = [
        Gallery(each.name, f"Images{each.title}" if each.title else "", each.text, each.cards) for each in galleries
    ]
    return Section("Images with mistakes", notes, galleries=galleries, warnings=warnings, run_numbers=numbers)


def _in_turn(first: Sequence[T], second: Sequence[T]) -> list[T]:
    """The items of both sequences alternately."""
    return [item for item in chain.from_iterable(zip_longest(first, second)) if item is not None]


def _covering(worst: Iterable[Mistake], of_each_class: Iterable[Mistake]) -> list[int]:
    """The images of the worst mistakes and, if there is room, one for each class that they do not show."""
    worst = list(worst)
    images = dict.fromkeys(mistake.image for mistake in worst)
    classes = {mistake.label for mistake in worst}
    for mistake in of_each_class:
        if len(images) < _IMAGES and mistake.label not in classes:
            images[mistake.image] = None
            classes.add(mistake.label)
    return list(images)[:_IMAGES]


def _multilabel_card(
    analysis: MultilabelAnalysis, image: int, small: SmallImages, maps: MapsShown, explained: Sequence[int]
) -> Card:
    run = analysis.run
    scores, targets = np.asarray(run.probabilities[image]), np.asarray(run.targets[image])
    predicted = scores > analysis.limits
    order = np.argsort(-scores, kind="stable")
    kinds = (
        ("wrong", predicted & (targets == 0)),
        ("missed", ~predicted & (targets == 1)),
        ("right", predicted & (targets == 1)),
        ("other", predicted & (targets == -1)),
    )
    marks, classes, rest = [], [], []
    for kind, mask in kinds:
        of_kind = order[mask[order]].tolist()
        marks += [Mark(run.classes[c], f"{scores[c]:.3f}", kind) for c in of_kind[:_MARKS]]
        classes += of_kind
        rest += [f"{len(of_kind) - _MARKS} more {kind}"] if len(of_kind) > _MARKS else []
    name = run.images[image]
    pairs = [(run.classes[c], maps.of(name, run.classes[c])) for c in dict.fromkeys(explained)]
    return small.card(name, marks, classes, text=", ".join(rest), maps=pairs)


def _single_label_card(analysis: SingleLabelAnalysis, image: int, small: SmallImages, maps: MapsShown) -> Card:
    run = analysis.run
    scores = np.asarray(run.probabilities[image])
    label, predicted = int(run.labels[image]), int(analysis.scores.predicted[image])
    likely = np.argsort(-scores, kind="stable")[:_LIKELY].tolist()
    kind_of = {predicted: "wrong", label: "missed"}
    classes = [predicted, label, *(c for c in likely if c not in kind_of)]
    marks = [Mark(run.classes[c], f"{scores[c]:.3f}", kind_of.get(c, "other")) for c in classes]
    name = run.images[image]
    heat = maps.of(name, run.classes[predicted])
    return small.card(name, marks, [predicted, label], maps=[(run.classes[predicted], heat)])


def _as_json(analysis: MultilabelAnalysis, mistake: Mistake) -> dict[str, object]:
    run = analysis.run
    return {
        "image": run.images[mistake.image],
        "class": run.classes[mistake.label],
        "probability": mistake.probability,
    }
