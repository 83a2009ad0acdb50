# A narrow TResNet on the sample data (tresnet digits): a few minutes on a CPU.
_base_ = ['_base_/multilabel_data.py', '_base_/schedule_one_cycle.py', '_base_/runtime.py']

data_root = 'data/digits'
data_source = 'tresnet digits makes it'
train_annotations = 'annotations/instances_train.json'
train_images = 'train'
val_annotations = 'annotations/instances_val.json'
val_images = 'val'

model = dict(
    type='ImageClassifier',
    backbone=dict(type='TResNet', layers=(1, 1, 2, 1), width=0.25),
    head=dict(type='LinearHead', num_classes=10),
    loss=dict(type='AsymmetricLoss', gamma_neg=2, gamma_pos=0, clip=0.05))

# No augmentation that turns a digit into another one, such as flips or a large cutout.
image_size = 96
train_pipeline = [
    dict(type='SquashResize', size='$image_size'),
    dict(type='Affine', scale=(0.85, 1.15), translate_percent=(-0.08, 0.08), rotate=(-8, 8), border_mode=1, p=0.7),
]
batch_size = 32
num_workers = 2
max_lr = 4e-3
max_epochs = 10
average_decay = 0.99
average_warmup = True
