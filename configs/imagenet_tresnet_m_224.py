# TResNet-M at 224 on ImageNet-1k, timm's recipe for 8 GPUs; published top-1 80.5.
_base_ = ['_base_/imagenet.py', '_base_/schedule_cosine.py', '_base_/runtime.py']

model = dict(
    type='ImageClassifier',
    multi_label=False,
    backbone=dict(type='TResNet', variant='m'),
    head=dict(type='LinearHead', num_classes=1000),
    loss=dict(type='CrossEntropy', label_smoothing=0.1),
    batch_transforms=[
        dict(type='RandomErasing', prob=0.4, mode='pixel'),
        dict(type='Mixup', mixup_alpha=0.2),
    ])

image_size = 224
batch_size = 190  # images per batch, for each of 8 processes
max_lr = 0.6
max_epochs = 300
weight_decay = 2e-5
warmup = 0.01
average_decay = 0.9998
