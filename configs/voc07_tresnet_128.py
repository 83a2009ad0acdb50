# The network of tiny_imagenet_tresnet_64.py on PASCAL VOC 2007 at 128: trained on its split `train`, scored on `val`.
_base_ = ['voc07_efficientnet_lite0_224.py']
pretrained = None  # checkpoint of a training of tiny_imagenet_tresnet_64.py

model = dict(
    backbone=dict(
        _delete_=True,
        type='TResNet',
        layers=(1, 1, 2, 1),
        width=0.5,
        init_cfg=dict(type='Pretrained', checkpoint='$pretrained')))

image_size = 128
max_lr = 1e-3
max_epochs = 8
