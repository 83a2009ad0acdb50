"""Folders for the Hugging Face hub: :func:`share` writes what ``load_model``, ``load_detector`` and timm read."""

from tresnet_downstream.deployment.sharing.folder import Shared, share

__all__ = ["Shared", "share"]
