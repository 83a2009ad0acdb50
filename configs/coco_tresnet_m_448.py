# TResNet-M at 448 with the asymmetric loss; no published score.
_base_ = ['_base_/coco_multilabel.py', '_base_/schedule_one_cycle.py', '_base_/runtime.py']
pretrained = None  # file with ImageNet weights; the published scores start from them

model = dict(
    type='ImageClassifier',
    backbone=dict(type='TResNet', variant='m'),
    head=dict(type='LinearHead', num_classes=80),
    loss=dict(type='AsymmetricLoss', gamma_neg=4, gamma_pos=0, clip=0.05))

image_size = 448
batch_size = 128
max_lr = 1e-4
max_epochs = 80
stop_epoch = 41  # the release stops half-way down
