# EfficientNet-Lite0 at 224 on PASCAL VOC 2007: trained on its split `train`, scored on `val`.
_base_ = ['_base_/multilabel_data.py', '_base_/schedule_one_cycle.py', '_base_/runtime.py']
pretrained = None  # a file of timm's tf_efficientnet_lite0

data_root = 'VOCdevkit/VOC2007'
train_annotations = 'ImageSets/Main/train.txt'
train_images = 'JPEGImages'
val_annotations = 'ImageSets/Main/val.txt'
val_images = 'JPEGImages'
data_source = 'PASCAL VOC is downloaded from host.robots.ox.ac.uk/pascal/VOC (VOCtrainval_06-Nov-2007.tar)'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='TimmNetwork',
        model='tf_efficientnet_lite0',
        init_cfg=dict(type='Pretrained', checkpoint='$pretrained')),
    head=dict(type='LinearHead', num_classes=None),
    loss=dict(type='AsymmetricLoss', gamma_neg=4, gamma_pos=0, clip=0.05))

image_size = 224
batch_size = 32
num_workers = 2
max_lr = 2e-4
max_epochs = 12
average_decay = 0.99
average_warmup = True
