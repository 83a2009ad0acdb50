"""Class weights in the loss, and the initial bias of the head, from the frequencies of the classes."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tresnet_downstream.classification.class_labels import ClassLabels
from tresnet_downstream.errors import UserError

WEIGHTINGS = ("inverse", "effective")
BIASES = ("frequencies",)


def class_weights(value: object, labels: ClassLabels, beta: float = 0.999) -> NDArray[np.float64]:
    """Computes the weight of each class.

    ``inverse`` is ``1 / n_c``, where ``n_c`` is the number of images that show class ``c``. ``effective`` is
    ``(1 - beta) / (1 - beta ** n_c)``, the inverse of the effective number of samples (Cui et al., 2019,
    arXiv:1901.05555). Both are scaled so that their mean over the labels of the data is 1, while Cui et al. scale the
    mean over the classes. With one label for each image, ``inverse`` then equals scikit-learn's ``balanced``. Weights
    that are passed as numbers are not scaled.

    Args:
        value: ``inverse``, ``effective``, C numbers in the order of the classes, or numbers by class name. Classes that
            are not named get 1.
        labels: labels of the training data.
        beta: parameter of ``effective``, at least 0 and below 1.

    Returns:
        The weights, float64 of shape (C,).

    Raises:
        UserError: for another value, an unknown class, or a weight that is not a number of at least 0.

    Examples:
        >>> from tresnet_downstream.classification.class_labels import single_labels
        >>> class_weights("inverse", single_labels(("cat", "dog"), np.array([0, 0, 0, 1]))).round(3)
        array([0.667, 2.   ])
    """
    classes = labels.classes
    if isinstance(value, str):
        return _from_counts(value, labels.positives(), beta)
    if isinstance(value, Mapping):
        by_name = {str(name): weight for name, weight in value.items()}
        for name in by_name:
            if name not in classes:
                nearest = get_close_matches(name, classes, n=3)
                hint = f"; nearest: {', '.join(nearest)}" if nearest else f"; there are {', '.join(classes[:10])}"
                raise UserError(f"class_weights: there is no class {name!r}{hint}")
        numbers = [by_name.get(name, 1.0) for name in classes]
    elif isinstance(value, Sequence | np.ndarray):
        numbers = list(value)
        if len(numbers) != len(classes):
            raise UserError(f"class_weights: has {len(numbers)} numbers, but there are {len(classes)} classes")
    else:
        raise UserError(f"class_weights={value!r}: {_CHOICES}")
    for name, number in zip(classes, numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < float("inf"):
            raise UserError(f"class_weights: the weight of {name!r} is {number!r}; give a number of at least 0")
    if not any(numbers):
        raise UserError("class_weights: all weights are 0, so the network would not learn")
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
    # The weight of a class that no image shows has no effect. It is set to 1.
    scale = counts.sum() / (weights * counts).sum() if shown.any() else 1.0
    return np.where(shown, weights * scale, 1.0)


def weights_text(value: object, weights: NDArray[np.float64], labels: ClassLabels) -> str:
    """A line about the weights, which is printed before a training."""
    least, most = int(np.argmin(weights)), int(np.argmax(weights))
    kind = value if isinstance(value, str) else "as set"
    text = (
        f"class_weights: {kind}, from {weights[least]:.3g} ({labels.classes[least]!r}) to {weights[most]:.3g} "
        f"({labels.classes[most]!r})"
    )
    if unseen := labels.classes_without_image():
        text += f"; no effect on {unseen}, which no training image shows"
    return text


def initial_biases(labels: ClassLabels, multi_label: bool) -> NDArray[np.float64]:
    """The biases for which logits without other terms give the frequencies of the classes.

    Let ``f`` be the share of the images that show a class. With several labels per image, the bias is
    ``log(f / (1 - f))`` (Lin et al., 2017, arXiv:1708.02002, section 3.3, with the frequency as the prior). With one
    label, it is ``log f``. If no image shows a class, half an image is counted; if all images show it, half an image is
    subtracted.

    Args:
        labels: labels of the training data.
        multi_label: whether probabilities are a sigmoid for each class, or a softmax over all.

    Returns:
        The biases, (C,).
    """
    known = np.maximum(len(labels) - labels.unknown, 1)
    shares = np.clip(labels.positives(), 0.5, known - 0.5) / known if multi_label else _shares(labels)
    return np.log(shares) - (np.log1p(-shares) if multi_label else 0.0)


def _shares(labels: ClassLabels) -> NDArray[np.float64]:
    return np.maximum(labels.positives(), 0.5) / len(labels)


def set_initial_bias(head: nn.Module, biases: NDArray[np.float64]) -> None:
    """Sets the bias of a head's logits.

    Args:
        head: a head with an attribute ``class_bias``, the parameter of shape (C,) that is added to the logits.
        biases: (C,).

    Raises:
        UserError: if the head does not have this attribute.
    """
    bias = getattr(head, "class_bias", None)
    if not isinstance(bias, Tensor) or tuple(bias.shape) != biases.shape:
        raise UserError(
            f"initial_bias: {type(head).__name__} has no attribute `class_bias`, the parameter of {len(biases)} "
            "numbers that is added to its logits; add it, or leave initial_bias out"
        )
    with torch.no_grad():
        bias.copy_(torch.from_numpy(biases))
