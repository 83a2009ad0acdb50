# TResNet-M at 224 with the asymmetric loss; published mAP 81.8, which started from ImageNet-21K weights.
# From ImageNet-1k weights, users of the release report about 79.
_base_ = ['coco_tresnet_l_448.py']
pretrained = 'tresnet://m_in21k_224'
model = dict(backbone=dict(variant='m'))
image_size = 224
