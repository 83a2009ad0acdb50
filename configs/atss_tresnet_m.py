# ATSS on MS-COCO 2017, 12 epochs (1x).
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', '_base_/tresnet_detection.py']

model = dict(
    data_preprocessor=_base_.pixels,
    backbone=_base_.tresnet_m,
    neck=dict(in_channels=_base_.tresnet_m_channels))

default_hooks = dict(checkpoint=_base_.checkpoints)
