# FCOS with ATSS's improvements on MS-COCO 2017, 12 epochs (1x).
_base_ = ['fcos_atss_tresnet_m.py']

model = dict(
    backbone=dict(variant='l', init_cfg=_base_.tresnet_l.init_cfg),
    neck=dict(in_channels=_base_.tresnet_l_channels))
