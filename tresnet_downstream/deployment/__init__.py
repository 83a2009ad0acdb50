"""Fusing, export and quantisation of trained networks for inference."""

from tresnet_downstream.deployment.fuse import fuse

__all__ = ["fuse"]
