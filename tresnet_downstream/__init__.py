"""Multi-label image classification and object detection with the TResNet family."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tresnet_downstream.backbones import TResNet

__all__ = ["TResNet"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a tool's --help or a mistyped path need not wait for torch.
    if name == "TResNet":
        from tresnet_downstream.backbones import TResNet

        return TResNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
