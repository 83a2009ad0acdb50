# A ResNet-18 of half width beside tiny_imagenet_tresnet_64.py: as fast as that TResNet on a CPU in float32.
_base_ = ['tiny_imagenet_tresnet_64.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmNetwork',
        model='resnet18',
        options=dict(channels=(32, 64, 128, 256)),
        init_cfg=dict(type='Pretrained', checkpoint='$pretrained')))
