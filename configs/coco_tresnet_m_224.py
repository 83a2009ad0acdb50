# TResNet-M at 224 with the asymmetric loss; published mAP 81.8.
_base_ = ['coco_tresnet_l_448.py']
pretrained = 'tresnet://m_in1k_224'
model = dict(backbone=dict(variant='m'))
image_size = 224
