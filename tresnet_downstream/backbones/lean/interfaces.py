"""The interface that ``torch_kernels`` and ``triton_kernels`` have in common."""

from typing import Protocol

from torch import Tensor


class OutputGradient(Protocol):
    """The gradient at the output of a norm; see the classes of this name in both modules."""

    grad: Tensor

    def sums(self, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sums over pixels of the gradient and of its product with the input less ``centre``."""

    def through_relu(self) -> tuple["OutputGradient", Tensor, Tensor]:
        """The gradient at the norm's output and its two sums over each image, N x C each."""

    def line(self, factor: Tensor, bend: Tensor | None, offset: Tensor) -> Tensor:
        """``factor * gradient + bend * input + offset``."""


class Kernels(Protocol):
    """A module with the operations of a training step between convolutions."""

    def line(
        self,
        x: Tensor,
        slope: Tensor,
        offset: Tensor,
        negative_slope: float = 1.0,
        shortcut: Tensor | None = None,
    ) -> Tensor:
        """``leaky_relu(slope * x + offset + shortcut)``."""

    def OutputGradient(  # noqa: N802 - a class of the module
        self, grad: Tensor, x: Tensor | None, y: Tensor | None, negative_slope: float = 1.0
    ) -> OutputGradient:
        """Makes a gradient from that of the activation's output and the tensors that the forward pass saved."""


class BlurringKernels(Kernels, Protocol):
    """Kernels that can also blur in the same step: those of Triton."""

    def fits(self, x: Tensor) -> bool:
        """Whether a feature map is within the limits of the kernels."""

    def line_and_blur(self, x: Tensor, slope: Tensor, offset: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
        """``leaky_relu(slope * x + offset)`` and its blur."""

    def OutputGradient(  # noqa: N802 - a class of the module
        self,
        grad: Tensor,
        x: Tensor | None,
        y: Tensor | None,
        negative_slope: float = 1.0,
        blurred: bool = False,
    ) -> OutputGradient:
        """As that of :class:`Kernels`, also from the gradient of the blurred output."""
