"""Types: what is shorter than float32 is computed in float32."""

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The tensor itself if it is float32 or float64, otherwise in float32; contiguous."""
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).contiguous()
