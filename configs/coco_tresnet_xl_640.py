# TResNet-XL at 640 with the asymmetric loss; published mAP 88.4.
_base_ = ['coco_tresnet_l_448.py']
pretrained = 'tresnet://xl_in1k_448'
model = dict(backbone=dict(variant='xl'))
image_size = 640
