"""Describes a data set before a training or a scoring: numbers of images and positives, and warnings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tresnet_downstream.classification.datasets import MultiLabelDataset


def summary(
    split: str, dataset: MultiLabelDataset, pipeline: Sequence[Mapping[str, object]], names_file: str | Path
) -> list[str]:
    """Describes a data set: images used and left out, positives of the classes, image size, pipeline, and warnings.

    Args:
        split: name of the split, such as ``train``.
        dataset: the data set.
        pipeline: configs of the transforms.
        names_file: the file that lists the images that are left out.

    Returns:
        The lines.
    """
    annotations = dataset.annotations
    positives = annotations.positives_per_class()
    negatives = len(annotations) - positives - annotations.unknown_per_class()
    left_out = annotations.num_unlabelled
    text = f"{split}: {len(annotations):,} images of {dataset.annotation_file}"
    if left_out:
        text += f", {left_out:,} without a label left out (keep_empty=True keeps them; {names_file} lists them)"
    lines = [
        f"{text}; {_spread(positives, dataset.classes)}",
        f"{split}: images of {size_text(dataset)} pixels by {pipeline_text(pipeline)}",
    ]
    if dataset.num_missing:
        lines.append(
            f"warning: {split}: {dataset.num_missing:,} of {len(annotations):,} files are not in {dataset.image_folder}"
        )
    if len(unseen := np.flatnonzero(positives == 0)):
        lines.append(f"warning: {split}: no image shows {_named(unseen, dataset.classes)}")
    if len(in_all := np.flatnonzero((negatives == 0) & (positives > 0))):
        several = len(in_all) > 1
        effect = "training has no example of an image without " + ("them" if several else "it")
        if split != "train":
            effect = f"{'their' if several else 'its'} AP is 100 for any predictions"
        line = f"warning: {split}: all images show {_named(in_all, dataset.classes)}, so {effect}"
        if left_out:
            line += f"; {left_out:,} images without a label are left out, and keep_empty=True keeps them"
        lines.append(line)
    return lines


def size_text(dataset: MultiLabelDataset) -> str:
    """The size of images after the pipeline: ``height x width``, or ``various``."""
    size = dataset.image_size()
    return "various" if size is None else f"{size[0]} x {size[1]}"


def pipeline_text(pipeline: Sequence[Mapping[str, object]]) -> str:
    """The transforms in order, such as ``SquashResize(size=448), Cutout(factor=0.5)``."""
    steps = []
    for step in pipeline:
        arguments = ", ".join(f"{key}={value!r}" for key, value in step.items() if key != "type")
        steps.append(f"{step.get('type')}({arguments})" if arguments else str(step.get("type")))
    return ", ".join(steps) or "no transforms"


def _spread(positives: np.ndarray, classes: Sequence[str]) -> str:
    if len(classes) == 1:
        return f"1 class, {classes[0]!r}, in {positives[0]:,} images"
    least, most = int(np.argmin(positives)), int(np.argmax(positives))
    if positives[least] == positives[most]:
        return f"{len(classes):,} classes, in {positives[least]:,} images each"
    return (
        f"{len(classes):,} classes, in {positives[least]:,} ({classes[least]!r}) to {positives[most]:,} "
        f"({classes[most]!r}) images each"
    )


def _named(which: np.ndarray, classes: Sequence[str]) -> str:
    """The names of the first three classes, and the number of the others."""
    names = ", ".join(repr(classes[c]) for c in which[:3])
    more = f" and {len(which) - 3:,} more" if len(which) > 3 else ""
    return f"the class{'es' if len(which) > 1 else ''} {names}{more}"
