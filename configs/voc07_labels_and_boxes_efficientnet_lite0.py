# A joint model on PASCAL VOC 2007: a small RetinaNet on EfficientNet-Lite0 with a classification head on the backbone.
# Trained on the split `train`, scored on `val`, at 224 pixels.
_base_ = ['voc07_retinanet_tresnet_m.py', '_base_/labels_and_boxes.py']
runner_type = 'tresnet_downstream.JointRunner'

labels = dict(loss_weights=dict(labels=0.5))
channels = 96
model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(
        _delete_=True,
        type='TimmNetwork',
        model='tf_efficientnet_lite0',
        out_indices=(1, 2, 3),
        final_layers=True,
        init_cfg=dict(type='Pretrained', checkpoint='tf_efficientnet_lite0.safetensors')),
    neck=dict(in_channels=None, out_channels=channels, start_level=0, num_outs=4),
    bbox_head=dict(
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        anchor_generator=dict(strides=[8, 16, 32, 64], scales_per_octave=2)))

image_scale = (224, 224)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='RandomResize', scale=image_scale, ratio_range=(0.8, 1.2), keep_ratio=True),
        dict(type='RandomCrop', crop_size=image_scale),
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

max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.5)}),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=_base_.checkpoints)
