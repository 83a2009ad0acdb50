"""Computes probabilities from logits."""

import numpy as np


def probabilities_of(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """N x C logits to N x C probabilities: a sigmoid for each class, or a softmax over all.

    They are computed in float64, so that the error of the float32 results is at most one unit in the last place.

    Args:
        logits: N x C, of any floating-point type.
        multi_label: whether to compute sigmoids.

    Returns:
        float32, 0 to 1; NaN where a logit is NaN.

    Examples:
        >>> probabilities_of(np.zeros((1, 2), np.float32), multi_label=False)
        array([[0.5, 0.5]], dtype=float32)
    """
    wide = np.asarray(logits, np.float64)
    if multi_label:
        # The argument of exp is at most 0, so that it does not overflow.
        power = np.exp(-np.abs(wide))
        sigmoids: np.ndarray = (np.where(wide >= 0, 1.0, power) / (1 + power)).astype(np.float32)
        return sigmoids
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, as in torch
        power = np.exp(wide - wide.max(1, keepdims=True))
    result: np.ndarray = (power / power.sum(1, keepdims=True)).astype(np.float32)
    return result
