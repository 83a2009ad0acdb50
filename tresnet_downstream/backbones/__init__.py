"""Backbones: networks from images to feature maps."""

from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.arguments import Variant
from tresnet_downstream.backbones.lean.acceleration import use_triton
from tresnet_downstream.backbones.timm_network import TimmNetwork
from tresnet_downstream.backbones.tresnet import VARIANTS, TResNet, variant_name

__all__ = ["VARIANTS", "ActivatedBatchNorm", "TResNet", "TimmNetwork", "Variant", "use_triton", "variant_name"]
