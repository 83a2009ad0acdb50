# Cascade R-CNN on MS-COCO 2017, 12 epochs (1x).
_base_ = ['cascade_rcnn_tresnet_m.py']

model = dict(
    backbone=dict(variant='l', init_cfg=_base_.tresnet_l.init_cfg),
    neck=dict(in_channels=_base_.tresnet_l_channels))
