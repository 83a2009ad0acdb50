# RTMDet with the neck and head of RTMDet-L on MS-COCO 2017, 300 epochs. As in RTMDet, the whole backbone is trained,
# including norms, with 32 images for each of 8 processes.
_base_ = ['mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py', '_base_/tresnet_detection.py']

model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_base_.tresnet_m, out_indices=(1, 2, 3), frozen_stages=-1, norm_eval=False),
    neck=dict(in_channels=_base_.tresnet_m_channels[1:]))

default_hooks = dict(checkpoint=_base_.checkpoints)
