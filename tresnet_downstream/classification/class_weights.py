"""What the frequencies of classes decide before a training: weights in the loss, and the first bias of the head."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tresnet_downstream.classification.class_labels import ClassLabels
from tresnet_downstream.errors import UserError

WEIGHTINGS = ("inverse", "effective")
BIASES = ("frequencies",)


def class_weights(value: Any, labels: ClassLabels, beta: float = 0.999) -> NDArray[np.float64]:
    """The weight of each class: (C,), float64.

    ``inverse`` is ``1 / n_c``, with ``n_c`` the number of images that show class ``c``. ``effective`` is
    ``(1 - beta) / (1 - beta ** n_c)``, the inverse of the effective number of samples (Cui et al., 2019,
    arXiv:1901.05555). Both are scaled so that their mean over the labels of the data is 1, which leaves the sum of the
    weights of all labels as it was; with one label for each image, ``inverse`` is then scikit-learn's ``balanced``.
    (Cui et al. take the mean over the classes.) Weights given as numbers are used as they are.

    Args:
        value: ``inverse``, ``effective``, C numbers in the order of the classes, or numbers by class name; classes that
            are not named have 1.
        labels: of the training data.
        beta: of ``effective``, 0 to below 1.

    Raises:
        UserError: for another value, a class that there is not, or a weight that is no number of 0 or more.
    """
    classes = labels.classes
    if isinstance(value, str):
        return _from_counts(value, labels.positives(), beta)
    if isinstance(value, Mapping):
        by_name = {str(name): weight for name, weight in value.items()}
        for name in by_name:
            if name not in classes:
                nearest = get_close_matches(name, classes, n=3)
                meant = f"; nearest: {', '.join(nearest)}" if nearest else f"; there are {', '.join(classes[:10])}"
                raise UserError(f"class_weights: there is no class {name!r}{meant}")
        numbers = [by_name.get(name, 1.0) for name in classes]
    elif isinstance(value, Sequence | np.ndarray):
        numbers = list(value)
        if len(numbers) != len(classes):
            raise UserError(f"class_weights: has {len(numbers)} numbers, and there are {len(classes)} classes")
    else:
        raise UserError(f"class_weights={value!r}: {_CHOICES}")
    for name, number in zip(classes, numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < float("inf"):
            raise UserError(f"class_weights: the weight of {name!r} is {number!r}; give a number of 0 or more")
    if not any(numbers):
        raise UserError("class_weights: all weights are 0, so nothing would be learned")
    return np.asarray(numbers, np.float64)


_CHOICES = "choose 'inverse', 'effective', numbers by class name, a list of numbers, or {} for none"


def _from_counts(value: str, counts: NDArray[np.int64], beta: float) -> NDArray[np.float64]:
    if value not in WEIGHTINGS:
        raise UserError(f"class_weights={value!r}: {_CHOICES}")
    if type(beta) not in (int, float) or not 0 <= beta < 1:
        raise UserError(f"effective_beta={beta!r}: give a number from 0 to below 1")
    shown = counts > 0
    numbers = np.maximum(counts, 1).astype(np.float64)
    weights = 1 / numbers if value == "inverse" else (1 - beta) / (1 - beta**numbers)
    # The weight of a class that no image shows has no effect; 1 says so.
    scale = counts.sum() / (weights * counts).sum() if shown.any() else 1.0
    return np.where(shown, weights * scale, 1.0)


def weights_text(value: Any, weights: NDArray[np.float64], labels: ClassLabels) -> str:
    """What is told of the weights before a training."""
    least, most = int(np.argmin(weights)), int(np.argmax(weights))
    kind = value if isinstance(value, str) else "as set"
    text = (
        f"class_weights: {kind}, from {weights[least]:.3g} ({labels.classes[least]!r}) to {weights[most]:.3g} "
        f"({labels.classes[most]!r})"
    )
    if never := labels.classes_without_image():
        text += f"; no effect on {never}, which no training image shows"
    return text


def initial_biases(labels: ClassLabels, multi_label: bool) -> NDArray[np.float64]:
    """The biases at which a network without any knowledge predicts the frequencies of the classes: (C,).

    With several labels ``log(f / (1 - f))``, where ``f`` is the share of the images that show the class (the prior of
    Lin et al., 2017, arXiv:1708.02002, section 3.3, from the data); with one label ``log f``. A class that no image
    shows, or that all show, counts as if half an image did, or did not.

    Args:
        labels: of the training data.
        multi_label: whether probabilities are one sigmoid for each class, or a softmax.
    """
    known = np.maximum(len(labels) - labels.unknown, 1)
    shares = np.clip(labels.positives(), 0.5, known - 0.5) / known if multi_label else _shares(labels)
    return np.log(shares) - (np.log1p(-shares) if multi_label else 0.0)


def _shares(labels: ClassLabels) -> NDArray[np.float64]:
    return np.maximum(labels.positives(), 0.5) / len(labels)


def set_initial_bias(head: nn.Module, biases: NDArray[np.float64]) -> None:
    """Sets the bias of a head's logits.

    Args:
        head: with an attribute ``class_bias``, the parameter of shape (C,) that is added to the logits.
        biases: (C,).

    Raises:
        UserError: for a head without it.
    """
    bias: Any = getattr(head, "class_bias", None)
    if not isinstance(bias, Tensor) or tuple(bias.shape) != biases.shape:
        raise UserError(
            f"initial_bias: {type(head).__name__} has no attribute `class_bias`, the parameter of {len(biases)} "
            "numbers that is added to its logits; give it one, or leave initial_bias out"
        )
    with torch.no_grad():
        bias.copy_(torch.from_numpy(biases))
