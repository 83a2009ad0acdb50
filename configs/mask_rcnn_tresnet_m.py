# Mask R-CNN on MS-COCO 2017, 12 epochs (1x).
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '_base_/tresnet_detection.py']

model = dict(
    data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True),  # RGB in [0, 1], as the weights want
    backbone=dict(
        _delete_=True,
        type='TResNet',
        variant='m',
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='tresnet://m_in1k_448')),
    neck=dict(in_channels=[64, 128, 1024, 2048]))

default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP'))
