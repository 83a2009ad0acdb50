"""The end of a BasicBlock: norm without activation and squeeze-and-excite as one step that saves the norm's input.

With gates ``e`` (N x C, computed from the means of the norm's output ``z``) the result is ``factor * e * z``. The
gradient at ``z`` is therefore ``factor * e * grad + grad_means / area`` at every pixel. Two sums over each image, of
``grad`` and of ``grad * x``, are enough to compute the gradients of the gates, of the means and of the norm.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.branch_scaling import SqueezeExcite
from tresnet_downstream.backbones.lean import torch_kernels
from tresnet_downstream.backbones.lean.acceleration import kernels_for
from tresnet_downstream.backbones.lean.norm_backward import NormValues, Settings, backward_step, input_gradient
from tresnet_downstream.backbones.lean.recomputation import placeholder


def gated_norm(
    x: Tensor,
    norm: NormValues,
    squeeze_excite: SqueezeExcite | None = None,
    factors: Tensor | None = None,
    read: bool = True,
    shortcut: Tensor | None = None,
) -> Tensor:
    """``factors * gate * norm(x)``; with a shortcut, the block's end ``relu(shortcut + ...)``.

    Args:
        x: N x C x H x W, the output of the block's last convolution.
        norm: the statistics that this pass uses, and the parameters.
        squeeze_excite: computes the gate from the channel means of ``norm(x)``; None for no gate.
        factors: N factors of stochastic depth; None for 1.
        read: whether the values of the result are read. If not, they are not computed.
        shortcut: N x C x H x W; None for no shortcut.
    """
    gate: tuple[Tensor | None, ...] = (None,) * 4
    if squeeze_excite is not None:
        fc1, fc2 = squeeze_excite.fc1, squeeze_excite.fc2
        gate = fc1.weight, fc1.bias, fc2.weight, fc2.bias
    settings = (norm.eps, norm.training, norm.group)
    tensors = norm.weight, norm.bias, norm.mean, norm.inv_std, factors, shortcut
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = _GatedNorm.apply(x, *tensors, *gate, settings, read)
        return result


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inv_std: Tensor,
        factors: Tensor | None,
        shortcut: Tensor | None,
        weight1: Tensor | None,
        bias1: Tensor | None,
        weight2: Tensor | None,
        bias2: Tensor | None,
        settings: Settings,
        read: bool,
    ) -> Tensor:
        slope, offset = NormValues(weight, bias, mean, inv_std, *settings).line()
        x_means, gates = None, None
        if weight1 is not None and bias1 is not None and weight2 is not None and bias2 is not None:
            x_means = x.mean((2, 3), dtype=mean.dtype)
            gates = _Gate(torch.addcmul(offset, x_means, slope), weight1, bias1, weight2, bias2).gates
        ctx.settings, ctx.kernels = settings, kernels_for(x) or torch_kernels
        factor = _factor(gates, factors, mean)
        line = factor * slope, factor * offset
        out = None if shortcut is None else ctx.kernels.line(x, *line, 0.0, shortcut)
        gate = weight1, bias1, weight2, bias2
        ctx.save_for_backward(x, weight, bias, mean, inv_std, factors, x_means, out, *gate)
        if not read:
            return placeholder(x.shape, x)
        result: Tensor = ctx.kernels.line(x, *line) if out is None else out
        return result

    @staticmethod
    @backward_step
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inv_std, factors, x_means, out, *gate_parameters = ctx.saved_tensors
        norm = NormValues(weight, bias, mean, inv_std, *ctx.settings)
        gradient, sum_grad, sum_grad_x = ctx.kernels.OutputGradient(grad, x, out, 0.0).through_relu()

        gates, grad_means = None, None
        gate_grads: tuple[Tensor | None, ...] = (None,) * 4
        if x_means is not None:
            slope, offset = norm.line()
            grad_gates = _factor(None, factors, mean) * (slope * sum_grad_x + offset * sum_grad)
            gate = _Gate(torch.addcmul(offset, x_means, slope), *gate_parameters)
            gates = gate.gates
            grad_means, *gate_grads = gate.backward(grad_gates)  # type: ignore[assignment]
        factor = _factor(gates, factors, mean)

        # Sums over each image: the gradient at z, and its product with x.
        area = x.shape[2] * x.shape[3]
        sum_z, sum_zx = factor * sum_grad, factor * sum_grad_x
        if grad_means is not None:
            sum_z, sum_zx = sum_z + grad_means, sum_zx + grad_means * x_means
        sum_z, sum_zx = sum_z.sum(0), sum_zx.sum(0)
        grad_scale = (sum_zx - mean * sum_z) * inv_std
        line = input_gradient(norm, sum_z, grad_scale, x.shape[0] * area, mean, inv_std)
        constant = line.offset if grad_means is None else line.offset + line.factor * grad_means / area
        grad_x = gradient.line(line.factor * factor, line.bend, constant)
        parameter_grads = norm.parameter_gradients(grad_scale, sum_z)
        grad_shortcut = None if out is None else gradient.grad
        return grad_x, *parameter_grads, None, None, None, grad_shortcut, *gate_grads, None, None


class _Gate:
    """Squeeze-and-excite on N x C channel means and its backward pass, both in the type of the layers' weights."""

    def __init__(self, means: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> None:
        self.wide = means.dtype
        self.weight1, self.weight2 = weight1.flatten(1), weight2.flatten(1)
        self.means = means.to(weight1.dtype)
        self.hidden = F.relu(F.linear(self.means, self.weight1, bias1))
        self.narrow_gates = torch.sigmoid(F.linear(self.hidden, self.weight2, bias2))
        self.gates = self.narrow_gates.to(self.wide)

    def backward(self, grad_gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """From the gradient of the gates (N x C) to those of the means (N x C) and of both layers' weight and bias."""
        grad = torch.ops.aten.sigmoid_backward(grad_gates.to(self.narrow_gates.dtype), self.narrow_gates)
        grad_hidden = torch.ops.aten.threshold_backward(grad @ self.weight2, self.hidden, 0)
        layers = (grad_hidden, self.means), (grad, self.hidden)
        (weight1, bias1), (weight2, bias2) = (((g.T @ x)[:, :, None, None], g.sum(0)) for g, x in layers)
        return (grad_hidden @ self.weight1).to(self.wide), weight1, bias1, weight2, bias2


def _factor(gates: Tensor | None, factors: Tensor | None, like: Tensor) -> Tensor:
    """The factor of the norm's output: N x C, N x 1 or 1 x 1."""
    factor = like.new_ones((1, 1)) if factors is None else factors.to(like.dtype)[:, None]
    return factor if gates is None else factor * gates
