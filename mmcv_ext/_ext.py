"""Replaces the compiled module ``mmcv._ext`` that mmcv.ops imports: see the package ``mmcv_on_torchvision``."""

from mmcv_on_torchvision import *  # noqa: F403
from mmcv_on_torchvision import __getattr__  # noqa: F401 - for the operators that are not there
