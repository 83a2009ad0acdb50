"""The layers of a fused network. Each computes in the type of its input."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.backbones.branch_scaling import SqueezeExcite

ONE_BY_ONE = (1, 1)


class FusedConvolution(nn.Module):
    """A convolution of stride 1 with bias, followed by an activation or an addition.

    On a CPU, oneDNN computes all of it in one pass over memory, with weights in oneDNN's layout. The operators are
    those of torch that ``torch.compile`` uses for frozen weights; they need no compiler. On other devices, and while a
    graph or a gradient is recorded, ordinary operators compute the same.

    Args:
        weight: out x in x kernel x kernel, with an odd kernel size.
        bias: one value for each output channel.
        slope: negative slope of the leaky ReLU after it; 1 for no activation.
    """

    def __init__(self, weight: Tensor, bias: Tensor, slope: float = 1.0) -> None:
        super().__init__()
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.slope = slope
        self.padding = weight.shape[-1] // 2
        self._packed: tuple[torch.dtype, Tensor] | None = None

    def extra_repr(self) -> str:
        """Shows the sizes in ``print(module)``."""
        out_channels, in_channels, kernel, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel}, slope={self.slope:g}"

    def forward(self, x: Tensor, shortcut: Tensor | None = None, overwrite: bool = False) -> Tensor:
        """Computes ``leaky_relu(conv(x))`` or, with a shortcut, ``relu(conv(x) + shortcut)``.

        Args:
            x: N x in x H x W.
            shortcut: N x out x H x W.
            overwrite: whether the result may overwrite the shortcut.
        """
        if not self._in_one_pass(x) or (shortcut is not None and shortcut.dtype != x.dtype):
            y = self._plain(x)
            if shortcut is not None:
                return F.relu(y + shortcut, inplace=True)
            return y if self.slope == 1 else F.leaky_relu(y, self.slope, inplace=True)
        if shortcut is None:
            activation, values = ("none", []) if self.slope == 1 else ("leaky_relu", [self.slope])
            result: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *self._operands(x), activation, values, "")
            return result
        arguments = (*self._operands(x), "add", 1.0, "relu", [], "")
        if overwrite:
            result = torch.ops.mkldnn._convolution_pointwise_.binary(shortcut, x, *arguments)
        else:
            result = torch.ops.mkldnn._convolution_pointwise.binary(x, shortcut, *arguments)
        return result

    def _plain(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=self.padding)

    def _in_one_pass(self, x: Tensor) -> bool:
        return (
            isinstance(x, Tensor)  # torch.fx traces with a proxy
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.bfloat16)
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and not torch.is_autocast_enabled("cpu")
            and not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))
            and torch.backends.mkldnn.is_available()
            and (x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )

    def _operands(self, x: Tensor) -> tuple[object, ...]:
        padding = (self.padding, self.padding)
        if self._packed is None or self._packed[0] != x.dtype:
            # The layout is optimal for the shape of the first input, which saves 8% of the time; other shapes work too.
            plain = self.weight.detach().to(x.dtype).to_mkldnn()
            reorder: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
            self._packed = x.dtype, reorder(plain, padding, ONE_BY_ONE, ONE_BY_ONE, 1, x.shape)
        return self._packed[1], self.bias.to(x.dtype), padding, ONE_BY_ONE, ONE_BY_ONE, 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FusedConvolution":
        self._packed = None
        move: Callable[..., object] = super()._apply  # not annotated in torch
        move(fn, recurse)
        return self

    def _load_from_state_dict(self, *arguments: object, **keywords: object) -> None:
        self._packed = None
        super()._load_from_state_dict(*arguments, **keywords)

    def __getstate__(self) -> dict[str, object]:
        # Tensors in oneDNN's layout can be neither copied nor saved; a copy converts its weights again.
        return {**self.__dict__, "_packed": None}


class FusedBlur(nn.Module):
    """A 3x3 binomial blur with reflected borders and stride 2.

    Unlike :class:`~tresnet_downstream.backbones.downsampling.BlurPool`, it pads only the borders that stride 2 reaches.
    In an exported graph the borders are concatenated slices, because older releases of TensorRT have no reflecting pad.

    Args:
        filter_2d: C x 1 x 3 x 3.
    """

    filter: Tensor

    def __init__(self, filter_2d: Tensor) -> None:
        super().__init__()
        self.register_buffer("filter", filter_2d.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C x ceil(H/2) x ceil(W/2)."""
        x = _with_reflected_borders(x)
        return F.conv2d(x, self.filter.to(x.dtype), stride=2, groups=x.shape[1])


class FusedGate(nn.Module):
    """Squeeze-and-excite: two linear layers on the channel means."""

    def __init__(self, squeeze_excite: SqueezeExcite) -> None:
        super().__init__()
        for name, layer in (("1", squeeze_excite.fc1), ("2", squeeze_excite.fc2)):
            assert layer.bias is not None
            weight, bias = layer.weight.detach().flatten(1).clone(), layer.bias.detach().clone()
            self.register_parameter(f"weight{name}", nn.Parameter(weight, requires_grad=False))
            self.register_parameter(f"bias{name}", nn.Parameter(bias, requires_grad=False))

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Factors in (0, 1) of shape N x C x 1 x 1, for N x C x H x W."""
        hidden = F.relu(F.linear(x.mean((2, 3)), self.weight1.to(x.dtype), self.bias1.to(x.dtype)))
        gate = torch.sigmoid(F.linear(hidden, self.weight2.to(x.dtype), self.bias2.to(x.dtype)))
        return gate[:, :, None, None]


class FusedShortcut(nn.Module):
    """Average pooling, if the block has stride 2, followed by a 1x1 convolution.

    A single 2x2 convolution would be slower, because it needs four times as many multiplications.
    """

    def __init__(self, convolution: FusedConvolution, stride: int) -> None:
        super().__init__()
        self.convolution, self.stride = convolution, stride

    def forward(self, x: Tensor) -> Tensor:
        """Converts the block's input to the shape of its output, in newly allocated memory."""
        result: Tensor = self.convolution(_halved(x) if self.stride == 2 else x)
        return result


# torch.fx cannot trace branches that depend on a size, so these two functions are single nodes of its graphs.
@torch.fx.wrap
def _halved(x: Tensor) -> Tensor:
    """2x2 average pooling; for odd sides, the windows at the border are smaller."""
    odd = x.shape[2] % 2 == 1 or x.shape[3] % 2 == 1
    return F.avg_pool2d(x, 2, ceil_mode=odd, count_include_pad=False)


@torch.fx.wrap
def _with_reflected_borders(x: Tensor) -> Tensor:
    """N x C x H x W with the reflected borders that a 3x3 filter of stride 2 reaches."""
    height, width = x.shape[2:]
    if not torch.compiler.is_compiling():
        return F.pad(x, (1, width % 2, 1, height % 2), mode="reflect")
    for axis, size in ((2, height), (3, width)):
        far = [x.narrow(axis, size - 2, 1)] if size % 2 else []
        x = torch.cat([x.narrow(axis, 1, 1), x, *far], axis)
    return x
