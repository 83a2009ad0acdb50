# TResNet-M at 448 with the asymmetric loss; no published score.
_base_ = ['coco_tresnet_l_448.py']
model = dict(backbone=dict(variant='m'))
image_size = 448
