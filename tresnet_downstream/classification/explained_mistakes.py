"""Where a classifier looked at its worst mistakes, for a run folder."""

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
from tresnet_downstream.notices import tell
from tresnet_downstream.pictures import BadImageError, read_image


def with_explanations(
    run: MultilabelRun | SingleLabelRun, model: ImageClassifier, pipeline: Sequence[Mapping[str, Any]]
) -> MultilabelRun | SingleLabelRun:
    """The run with maps of the mistakes that its report shows.

    Images that are no files of their own, or can no longer be read, have none; a line says how many.

    Args:
        run: what was scored.
        model: the network that it was scored with; stays as it is.
        pipeline: the transforms that prepared its pictures, as a config has them.

    Raises:
        UserError: for what :func:`explain` raises.
    """
    if not pipeline:
        raise UserError(
            "val_dataloader.dataset.pipeline: is not set, and maps of mistakes need it; leave out `explain`"
        )
    prepare = build_pipeline(pipeline)
    pairs: list[tuple[str, str]] = []
    maps: list[np.ndarray] = []
    unread = []
    for row, labels in mistakes_to_explain(run).items():
        image = run.images[row]
        try:
            pixels = read_image(os.path.join(run.image_folder, image))
        except BadImageError as error:
            unread.append(str(error))
            continue
        maps += [stored_map(heat) for heat in explain(model, pixels, labels, (MAP_SIDE, MAP_SIDE), prepare)]
        pairs += [(image, run.classes[label]) for label in labels]
    if unread:
        tell(f"note: {len(unread)} mistakes have no map, since their images cannot be read: {unread[0]}")
    stacked = np.stack(maps) if maps else np.zeros((0, MAP_SIDE, MAP_SIDE), np.uint8)
    return replace(run, explanations=Explanations(explanation_method(model), pairs, stacked))
