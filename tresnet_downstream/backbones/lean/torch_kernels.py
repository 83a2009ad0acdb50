"""The elementwise operations and sums of a training step between convolutions, by torch's operators.

``triton_kernels`` has the same interface: an affine map with activation for the forward pass; sums and an affine map
for the backward pass. Only Triton's kernels blur in the same step. Only this module computes the whole backward pass of
a norm in one call, and sums over all images (1 x C), where Triton's kernels sum over each image (N x C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def line(
    x: Tensor, slope: Tensor, offset: Tensor, negative_slope: float = 1.0, shortcut: Tensor | None = None
) -> Tensor:
    """``leaky_relu(slope * x + offset + shortcut)`` in the type of ``x``.

    Args:
        x: N x C x H x W.
        slope: C, or N x C.
        offset: C, or N x C.
        negative_slope: 1 stands for no activation, 0 for ReLU.
        shortcut: N x C x H x W; None for 0.
    """
    if slope.dtype != x.dtype and slope.dim() == offset.dim() == 1:
        # One operator that reads and writes the short type and computes in the wide one.
        zeros, ones = torch.zeros_like(slope), torch.ones_like(slope)
        y = torch.native_batch_norm(x, slope, offset, zeros, ones, False, 0.0, 0.0)[0]
    else:
        y = torch.addcmul(spread(offset), x, spread(slope)).to(x.dtype)
    if shortcut is not None:
        y = y.add_(shortcut)
    return y if negative_slope == 1 else F.leaky_relu_(y, negative_slope)


class OutputGradient:
    """The gradient at the output of a norm, computed from the gradient at the output of the leaky ReLU after it.

    Args:
        grad: gradient of the activation's output, N x C x H x W.
        x: the norm's input. None to use the norm's output as ``source``, recovered by inverting the activation.
        y: the activation's output; None if there is no activation.
        negative_slope: 1 stands for no activation, 0 for ReLU.
    """

    def __init__(self, grad: Tensor, x: Tensor | None, y: Tensor | None, negative_slope: float = 1.0) -> None:
        if negative_slope != 1 and y is not None:
            if negative_slope == 0:
                grad = torch.ops.aten.threshold_backward(grad, y, 0)
            else:
                grad = torch.ops.aten.leaky_relu_backward(grad, y, negative_slope, True)
        self.grad = grad
        if x is not None:
            self.source = x
        else:
            assert y is not None
            self.source = y if negative_slope == 1 else F.leaky_relu(y, 1 / negative_slope)

    def sums(self, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sums over pixels of the gradient and of its product with ``source - centre``.

        Without a centre, the sums are over each image (N x C), and ``source`` is not centred. With a centre (C), they
        are over all images (1 x C), computed in one pass by torch's batch norm.
        """
        if centre is not None:
            ones = torch.ones_like(centre)
            _, product, total = torch.ops.aten.native_batch_norm_backward(
                self.grad, self.source, ones, centre, ones, None, None, False, 0.0, [False, True, True]
            )
            return total[None], product[None]
        wide = torch.promote_types(self.grad.dtype, torch.float32)
        return self.grad.sum((2, 3), dtype=wide), (self.grad.to(wide) * self.source).sum((2, 3))

    def through_relu(self) -> tuple["OutputGradient", Tensor, Tensor]:
        """This gradient and its two sums over each image, N x C each."""
        return self, *self.sums()

    def line(self, factor: Tensor, bend: Tensor | None, offset: Tensor) -> Tensor:
        """``factor * gradient + bend * source + offset``: factor and offset are C or N x C; bend is C, None for 0."""
        if bend is None:
            result = torch.addcmul(spread(offset), self.grad, spread(factor))
        else:
            result = torch.addcmul(spread(offset), self.source, spread(bend)).addcmul_(self.grad, spread(factor))
        return result.to(self.grad.dtype)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the source over pixels, C each, in float32 or float64."""
        wide = torch.promote_types(self.source.dtype, torch.float32)
        if self.source.device.type not in ("cpu", "cuda"):
            var, mean = torch.var_mean(self.source.to(wide), (0, 2, 3), correction=0)
            return mean, var
        # One pass that reads the short type. The operator needs running statistics, which are discarded.
        running = torch.zeros(self.source.shape[1], dtype=wide, device=self.source.device)
        mean, var = torch.ops.aten.batch_norm_update_stats(self.source, running, running.clone(), 0.0)
        return mean, var

    def norm_backward(self, weight: Tensor, centre: Tensor, inv_spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The backward pass of a norm in training mode, see ``activated_norm.norm_backward``.

        Returns:
            ``weight * inv_spread * (g - mean(g) - u * mean(g * u))`` with ``u = (source - centre) * inv_spread``;
            ``sum(g * u)``; ``sum(g)``.
        """
        grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            self.grad, self.source, weight, None, None, centre, inv_spread, True, 0.0, [True, True, True]
        )
        return grads


def spread(values: Tensor) -> Tensor:
    """C to 1 x C x 1 x 1, N x C to N x C x 1 x 1."""
    return values.reshape(-1, values.shape[-1], 1, 1)
