"""Networks that turn pictures into feature maps."""

from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.tresnet import VARIANTS, TResNet, Variant

__all__ = ["VARIANTS", "ActivatedBatchNorm", "TResNet", "Variant"]
