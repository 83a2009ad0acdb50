"""Maps of the worst mistakes of a classifier, for a run folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.explain import explain, explanation_method
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.explanations import MAP_SIDE, mistakes_to_explain, stored_map
from tresnet_downstream.evaluation.outcomes import Explanations, MultilabelRun, SingleLabelRun
from tresnet_downstream.images import BadImageError, read_image
from tresnet_downstream.notices import tell


def with_explanations(
    run: MultilabelRun | SingleLabelRun, model: ImageClassifier, pipeline: Sequence[Mapping[str, Any]]
) -> MultilabelRun | SingleLabelRun:
    """Adds maps of the mistakes that the report of a run shows.

    Images that are not files, or can no longer be read, get no map, and a line says how many.

    Args:
        run: the scored run.
        model: the classifier that was scored. It is not changed.
        pipeline: configs of the transforms that prepared the images.

    Returns:
        The run with its maps.

    Raises:
        UserError: if the pipeline is not set, or as :func:`explain`.
    """
    if not pipeline:
        raise UserError(
            "val_dataloader.dataset.pipeline: is not set, but maps of mistakes need it; leave out `explain`"
        )
    prepare = build_pipeline(pipeline)
    pairs: list[tuple[str, str]] = []
    maps: list[np.ndarray] = []
    reasons = []
    for row, labels in mistakes_to_explain(run).items():
        image = run.images[row]
        try:
            pixels = read_image(os.path.join(run.image_folder, image))
        except BadImageError as error:
            reasons.append(str(error))
            continue
        maps += [stored_map(heat) for heat in explain(model, pixels, labels, (MAP_SIDE, MAP_SIDE), prepare)]
        pairs += [(image, run.classes[label]) for label in labels]
    if reasons:
        tell(f"note: {len(reasons)} mistakes have no map, since their images cannot be read: {reasons[0]}")
    stacked = np.stack(maps) if maps else np.zeros((0, MAP_SIDE, MAP_SIDE), np.uint8)
    return replace(run, explanations=Explanations(explanation_method(model), pairs, stacked))
