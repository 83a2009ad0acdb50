# TResNet-M at 448 with the asymmetric loss; no published score.
_base_ = ['coco_tresnet_l_448.py']
pretrained = 'tresnet://m_in1k_448'
model = dict(backbone=dict(variant='m'))
image_size = 448
