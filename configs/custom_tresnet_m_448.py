# Your own images: set the four paths by --cfg-options. The classes are read from the training file.
_base_ = ['_base_/multilabel_data.py', '_base_/schedule_one_cycle.py', '_base_/runtime.py']
pretrained = None  # 'tresnet://m_in1k_448' or a file; without pretrained weights many more epochs are needed

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='TResNet', variant='m', init_cfg=dict(type='Pretrained', checkpoint='$pretrained')),
    head=dict(type='LinearHead', num_classes=None),
    loss=dict(type='AsymmetricLoss', gamma_neg=4, gamma_pos=0, clip=0.05))

image_size = 448
batch_size = 32
num_workers = 2
max_lr = 1e-4
max_epochs = 40
average_warmup = True
