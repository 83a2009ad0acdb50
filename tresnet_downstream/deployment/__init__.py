"""From a trained network to one that only predicts: fused, exported, quantised."""

from tresnet_downstream.deployment.fuse import fuse

__all__ = ["fuse"]
