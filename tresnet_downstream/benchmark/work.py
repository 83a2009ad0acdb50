"""Counts the multiply-adds of a network."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(network: nn.Module, size: int) -> int:
    """Counts the multiply-adds of the forward pass in evaluation mode, for one image of ``size`` x ``size`` pixels."""
    first = next(network.parameters())
    image = torch.zeros(1, 3, size, size, device=first.device, dtype=first.dtype)
    training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    network.train(training)
    # torch counts a multiplication and an addition as two operations.
    return int(counter.get_total_flops()) // 2
