"""Conversion of types that are shorter than float32, which are computed in float32."""

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The tensor as float32, or float64 if it is float64; contiguous."""
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).contiguous()
