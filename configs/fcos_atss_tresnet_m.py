# FCOS with ATSS's improvements on MS-COCO 2017, 12 epochs (1x): the detector that the TResNet paper trains.
# No further details of the paper's recipe are known. The improvements (center sampling, GIoU loss, boxes in units of
# the stride, centerness on the box branch), the schedule, the learning rate and the image sizes are MMDetection's.
# atss_tresnet_m.py is the full ATSS, with its own assignment of training samples.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
    '_base_/tresnet_detection.py',
]

model = dict(
    data_preprocessor=_base_.pixels,
    backbone=_base_.tresnet_m,
    neck=dict(in_channels=_base_.tresnet_m_channels))

default_hooks = dict(checkpoint=_base_.checkpoints)
