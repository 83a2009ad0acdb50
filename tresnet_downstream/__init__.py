"""Multi-label image classification and object detection with the TResNet family."""

from importlib import import_module
from typing import TYPE_CHECKING

from tresnet_downstream.version import __version__

if TYPE_CHECKING:
    from tresnet_downstream.backbones import TResNet
    from tresnet_downstream.classification.model_loading import load_model
    from tresnet_downstream.prediction.labels import predict

__all__ = ["TResNet", "__version__", "load_model", "predict"]

_HOMES = {"TResNet": "backbones", "load_model": "classification.model_loading", "predict": "prediction.labels"}


def __getattr__(name: str) -> object:
    # Imported on first use, so --help and errors in arguments need not wait for torch.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
