# Deformable DETR on MS-COCO 2017, 50 epochs; the backbone has a tenth of the learning rate.
_base_ = ['deformable_detr_tresnet_m.py']

model = dict(
    backbone=dict(variant='l', init_cfg=_base_.tresnet_l.init_cfg),
    neck=dict(in_channels=_base_.tresnet_l_channels[1:]))
