# A narrow TResNet at 64 pixels on Tiny ImageNet, in class folders or tables (data/make_tables.py): for two CPU cores.
_base_ = ['_base_/single_label_data.py', '_base_/runtime.py', '_base_/schedule_cosine.py']
pretrained = None  # a checkpoint of another training, from whose backbone this training starts

model = dict(
    type='ImageClassifier',
    multi_label=False,
    backbone=dict(
        type='TResNet', layers=(1, 1, 2, 1), width=0.5, init_cfg=dict(type='Pretrained', checkpoint='$pretrained')),
    head=dict(type='LinearHead', num_classes=None),
    loss=dict(type='CrossEntropy', label_smoothing=0.1))

data_root = 'data/tiny-imagenet'
train_images = 'train'
val_images = 'val'
data_source = 'Tiny ImageNet is downloaded from cs231n.stanford.edu (tiny-imagenet-200.zip)'

image_size = 64
batch_size = 64
num_workers = 2
# For the low resolution: larger crops than for ImageNet, no crop in scoring, and no strong augmentation.
train_pipeline = [
    dict(type='RandomCropAndResize', size='$image_size', scale=(0.35, 1.0)),
    dict(type='HorizontalFlip', p=0.5),
    dict(type='TimmAutoAugment', config='$rand_augment_config', size='$image_size', p='$rand_augment'),
]
val_pipeline = [dict(type='ResizeAndCrop', size='$image_size', fraction=1.0)]
rand_augment = 0.0
max_lr = 0.1
weight_decay = 5e-4
max_epochs = 10
average_decay = 0.99
average_warmup = True
