"""The networks of ResNet-RS with their input sizes, multiply-adds and published accuracies.

From "Revisiting ResNets: Improved Training and Scaling Strategies" (Bello et al., 2021, arXiv:2103.07579). A network is
built by ``TimmNetwork(model='resnetrs50')`` and so on. The paper chose depths and input sizes by two rules: scale the
depth if training is long enough to overfit (hundreds of epochs), else the width; and increase the input size slowly.
"""

from dataclasses import dataclass

from tresnet_downstream.errors import UserError


@dataclass(frozen=True)
class ScaledNetwork:
    """A ResNet-RS with its input size.

    Attributes:
        depth: number of layers, as in its name.
        input_size: height and width of the images in training and scoring, in pixels.
        top1: published top-1 accuracy on ImageNet-1k, in percent.
        multiply_adds: multiply-adds of the forward pass of one image, in units of 10^9, counted on timm's network.
        parameters: number of parameters with the classifier of 1,000 classes, in units of 10^6.
    """

    depth: int
    input_size: int
    top1: float
    multiply_adds: float
    parameters: float

    @property
    def model(self) -> str:
        """The name of the network in timm."""
        return f"resnetrs{self.depth}"


SCALED_NETWORKS = (
    ScaledNetwork(50, 160, 78.8, 2.28, 35.7),
    ScaledNetwork(101, 160, 80.3, 4.18, 63.6),
    ScaledNetwork(101, 192, 81.2, 6.01, 63.6),
    ScaledNetwork(152, 192, 82.0, 8.75, 86.6),
    ScaledNetwork(152, 224, 82.2, 11.90, 86.6),
    ScaledNetwork(152, 256, 83.0, 15.53, 86.6),
    ScaledNetwork(200, 256, 83.4, 20.09, 93.2),
    ScaledNetwork(270, 256, 83.8, 26.95, 129.9),
    ScaledNetwork(350, 256, 84.0, 34.38, 164.0),
    ScaledNetwork(350, 320, 84.2, 53.68, 164.0),
    ScaledNetwork(420, 320, 84.4, 63.94, 191.9),
)


def largest_within(multiply_adds: float) -> ScaledNetwork:
    """The largest network whose multiply-adds are within a budget.

    Args:
        multiply_adds: the budget for the forward pass of one image, in units of 10^9.

    Raises:
        UserError: if the budget is below the smallest network.

    Examples:
        >>> largest_within(10).model, largest_within(10).input_size
        ('resnetrs152', 192)
    """
    within = [network for network in SCALED_NETWORKS if network.multiply_adds <= multiply_adds]
    if not within:
        smallest = SCALED_NETWORKS[0]
        raise UserError(
            f"`budget` {multiply_adds:g}: is below the smallest ResNet-RS, {smallest.model} at {smallest.input_size}; "
            f"give at least {smallest.multiply_adds} (in 10^9 multiply-adds)"
        )
    return within[-1]


def scaled_networks_table(chosen: ScaledNetwork | None = None) -> str:
    """A text table with a line for each network. The line of ``chosen`` begins with ``>``."""
    lines = ["  network      input  10^9 multiply-adds  10^6 parameters  published top-1"]
    for network in SCALED_NETWORKS:
        mark = ">" if network == chosen else " "
        lines.append(
            f"{mark} {network.model:11}  {network.input_size:5}  {network.multiply_adds:18.2f}  "
            f"{network.parameters:15.1f}  {network.top1:15.1f}"
        )
    return "\n".join(lines)
