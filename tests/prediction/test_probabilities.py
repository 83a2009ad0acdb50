"""Probabilities from logits, compared with torch's."""

import numpy as np
import pytest
import torch

from tresnet_downstream.classification.classifier import probabilities_of as in_torch
from tresnet_downstream.prediction.probabilities import probabilities_of


@pytest.mark.parametrize("multi_label", [True, False])
def test_probabilities_are_those_of_float64(multi_label):
    logits = np.random.default_rng(0).normal(0, 8, (200, 30)).astype(np.float32)
    exact = in_torch(torch.from_numpy(logits).double(), multi_label).float().numpy()
    found = probabilities_of(logits, multi_label)
    assert found.dtype == np.float32
    assert np.allclose(found, exact, rtol=2e-7, atol=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("multi_label", [True, False])
def test_large_infinite_and_nan_logits_equal_torch(multi_label):
    inf, nan, greatest = np.inf, np.nan, np.finfo(np.float32).max
    rows = [[inf, 0, 1], [-inf, 0, 1], [nan, 0, 1], [greatest, -greatest, 0], [100, -100, 0], [-inf, -inf, -inf]]
    logits = np.array(rows, np.float32)
    wanted = in_torch(torch.from_numpy(logits), multi_label).numpy()
    assert np.allclose(probabilities_of(logits, multi_label), wanted, rtol=1e-6, atol=1e-40, equal_nan=True)
