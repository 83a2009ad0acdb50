"""From logits to probabilities."""

import numpy as np


def probabilities_of(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """N x C logits to N x C probabilities: a sigmoid for each class, or one softmax over all.

    Computed in float64, so that each is the float32 that is nearest to the exact one, or its neighbour.

    Args:
        logits: of any floating-point type.
        multi_label: whether to give sigmoids.

    Returns:
        float32, 0 to 1; NaN where a logit is NaN.

    Example:
        >>> probabilities_of(np.zeros((1, 2), np.float32), multi_label=False)
        array([[0.5, 0.5]], dtype=float32)
    """
    wide = np.asarray(logits, np.float64)
    if multi_label:
        # Of negative numbers alone, whose powers do not overflow.
        power = np.exp(-np.abs(wide))
        sigmoids: np.ndarray = (np.where(wide >= 0, 1.0, power) / (1 + power)).astype(np.float32)
        return sigmoids
    with np.errstate(invalid="ignore"):  # infinite logits, which give NaN as in torch
        power = np.exp(wide - wide.max(1, keepdims=True))
    result: np.ndarray = (power / power.sum(1, keepdims=True)).astype(np.float32)
    return result
