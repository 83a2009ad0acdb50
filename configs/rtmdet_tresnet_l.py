# RTMDet with the neck and head of RTMDet-L on MS-COCO 2017, 300 epochs.
_base_ = ['rtmdet_tresnet_m.py']

model = dict(
    backbone=dict(variant='l', init_cfg=_base_.tresnet_l.init_cfg),
    neck=dict(in_channels=_base_.tresnet_l_channels[1:]))
