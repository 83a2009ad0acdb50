# RetinaNet on MS-COCO 2017, 12 epochs (1x).
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '_base_/tresnet_detection.py']

model = dict(
    data_preprocessor=_base_.pixels,
    backbone=_base_.tresnet_l,
    neck=dict(in_channels=_base_.tresnet_l_channels))

default_hooks = dict(checkpoint=_base_.checkpoints)
