"""The networks of ResNet-RS with their input sizes, multiply-adds and published accuracies.

From "Revisiting ResNets: Improved Training and Scaling Strategies" (Bello et al., 2021, arXiv:2103.07579). A network is
built by ``TimmNetwork(model='resnetrs50')`` and so on. The paper chose depths and input sizes by two rules: scale the
depth if training is long enough to overfit (hundreds of epochs), else the width; and increase the input size slowly.
"""

from dataclasses import dataclass

from tresnet_downstream.errors import UserError


@dataclass(frozen=True)
class Rung:
    """One network of the ladder.

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


LADDER = (
    Rung(50, 160, 78.8, 2.28, 35.7),
    Rung(101, 160, 80.3, 4.18, 63.6),
    Rung(101, 192, 81.2, 6.01, 63.6),
    Rung(152, 192, 82.0, 8.75, 86.6),
    Rung(152, 224, 82.2, 11.90, 86.6),
    Rung(152, 256, 83.0, 15.53, 86.6),
    Rung(200, 256, 83.4, 20.09, 93.2),
    Rung(270, 256, 83.8, 26.95, 129.9),
    Rung(350, 256, 84.0, 34.38, 164.0),
    Rung(350, 320, 84.2, 53.68, 164.0),
    Rung(420, 320, 84.4, 63.94, 191.9),
)


def rung_for(multiply_adds: float) -> Rung:
    """The last network of the ladder whose multiply-adds are within a budget.

    Args:
        multiply_adds: the budget for the forward pass of one image, in units of 10^9.

    Raises:
        UserError: if the budget is below the lowest rung.

    Examples:
        >>> rung_for(10).model, rung_for(10).input_size
        ('resnetrs152', 192)
    """
    within = [rung for rung in LADDER if rung.multiply_adds <= multiply_adds]
    if not within:
        raise UserError(
            f"`budget`={multiply_adds:g}: the smallest network of the ladder, {LADDER[0].model} at "
            f"{LADDER[0].input_size}, takes {LADDER[0].multiply_adds} billion multiply-adds"
        )
    return within[-1]


def ladder_table(chosen: Rung | None = None) -> str:
    """The ladder as a text table with a line for each network. The line of ``chosen`` begins with ``>``."""
    lines = ["  network      input  10^9 multiply-adds  10^6 parameters  published top-1"]
    for rung in LADDER:
        mark = ">" if rung == chosen else " "
        lines.append(
            f"{mark} {rung.model:11}  {rung.input_size:5}  {rung.multiply_adds:18.2f}  {rung.parameters:15.1f}"
            f"  {rung.top1:15.1f}"
        )
    return "\n".join(lines)
