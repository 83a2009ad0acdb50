# DINO with 4 scales on MS-COCO 2017, 12 epochs (1x); the backbone has a tenth of the learning rate.
_base_ = ['dino_tresnet_m.py']

model = dict(
    backbone=dict(variant='l', init_cfg=_base_.tresnet_l.init_cfg),
    neck=dict(in_channels=_base_.tresnet_l_channels[1:]))
