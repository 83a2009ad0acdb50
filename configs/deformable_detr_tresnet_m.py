# Deformable DETR on MS-COCO 2017, 50 epochs; the backbone has a tenth of the learning rate.
_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '_base_/tresnet_detection.py']

model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_base_.tresnet_m, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.tresnet_m_channels[1:]))

default_hooks = dict(checkpoint=_base_.checkpoints)
