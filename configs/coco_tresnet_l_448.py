# TResNet-L at 448 with the asymmetric loss, the recipe of the ASL release; published mAP 86.6.
_base_ = ['_base_/coco_multilabel.py', '_base_/schedule_one_cycle.py', '_base_/runtime.py']
pretrained = 'tresnet://l_in1k_448'  # or a file, a URL, or None for random weights

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='TResNet', variant='l', init_cfg=dict(type='Pretrained', checkpoint='$pretrained')),
    head=dict(type='LinearHead', num_classes=80),
    loss=dict(type='AsymmetricLoss', gamma_neg=4, gamma_pos=0, clip=0.05))

image_size = 448
batch_size = 128  # images per batch, for each process
max_lr = 1e-4
max_epochs = 80
stop_epoch = 41  # last epoch; the release stops halfway through the schedule
