"""Writes a trained model as a folder for the Hugging Face hub, which this toolkit and, if possible, timm can load."""

from tresnet_downstream.deployment.sharing.folder import Shared, share

__all__ = ["Shared", "share"]
