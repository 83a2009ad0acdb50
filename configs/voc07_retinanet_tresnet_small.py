# A small RetinaNet on the network of tiny_imagenet_tresnet_64.py, PASCAL VOC 2007 at a short side of 256: for a CPU.
_base_ = ['voc07_retinanet_tresnet_m.py']

channels = 96
model = dict(
    backbone=dict(
        _delete_=True,
        type='TResNet',
        layers=(1, 1, 2, 1),
        width=0.5,
        init_cfg=dict(type='Pretrained', checkpoint='tiny_imagenet_tresnet_64/best.pth')),
    neck=dict(in_channels=None, out_channels=channels, num_outs=4),
    bbox_head=dict(
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        anchor_generator=dict(strides=[8, 16, 32, 64], scales_per_octave=2)))

image_scale = (427, 256)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=image_scale, keep_ratio=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]))
val_dataloader = dict(
    batch_size=16,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=image_scale, keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]))
test_dataloader = val_dataloader

max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-4), clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=_base_.checkpoints)
