"""The functions of ``mmcv._ext`` that MMDetection's detectors use, on torchvision's kernels and torch.

Their arguments and results are those of mmcv 2.1.0's compiled functions, on CPUs and GPUs; most functions write into
tensors that the caller allocated. float16 and bfloat16 are computed in float32 and rounded once; mmcv computes in the
short type. All operators here support every device and type; some of mmcv's support only GPUs.

Every other name of ``mmcv._ext`` exists as a function that raises NotImplementedError.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torchvision

from mmcv_on_torchvision.boxes import bbox_overlaps, nms, nms_match, softnms
from mmcv_on_torchvision.deformable import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from mmcv_on_torchvision.focal_losses import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from mmcv_on_torchvision.reassembly import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
    masked_col2im_forward,
    masked_im2col_forward,
)
from mmcv_on_torchvision.regions import roi_align_backward, roi_align_forward, roi_pool_backward, roi_pool_forward

__all__ = [
    "bbox_overlaps",
    "carafe_backward",
    "carafe_forward",
    "carafe_naive_backward",
    "carafe_naive_forward",
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "masked_col2im_forward",
    "masked_im2col_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "nms_match",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
    "softnms",
]


def get_compiler_version() -> str:
    """The text for reports in which mmcv names its compiler."""
    return f"none, mmcv-on-torchvision with torchvision {torchvision.__version__}"


def get_compiling_cuda_version() -> str:
    """The CUDA version of torch's own kernels, or ``not available``."""
    return torch.version.cuda or "not available"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv._ext.{name} is not among the operators that mmcv-on-torchvision has; for it compile mmcv: "
            "pip uninstall mmcv-on-torchvision mmcv-lite, then "
            "pip install 'setuptools<81' and pip install --no-build-isolation mmcv==2.1.0"
        )

    missing.__name__ = name
    return missing
