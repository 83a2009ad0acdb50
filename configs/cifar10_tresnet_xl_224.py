# TResNet-XL at 224 on CIFAR-10, 80 epochs from ImageNet; published top-1 99.0.
_base_ = ['_base_/torchvision_data.py', '_base_/schedule_cosine.py', '_base_/runtime.py']
pretrained = 'tresnet://xl_in1k_224'  # or a file, a URL, or None for random weights

dataset_name = 'CIFAR10'
model = dict(
    type='ImageClassifier',
    multi_label=False,
    backbone=dict(
        type='TResNet', variant='xl', init_cfg=dict(type='Pretrained', checkpoint='$pretrained')),
    head=dict(type='LinearHead', num_classes=None),
    loss=dict(type='CrossEntropy', label_smoothing=0.1))

image_size = 224
batch_size = 64  # images per batch, for each process
max_epochs = 80
max_lr = 1e-2
weight_decay = 1e-4
warmup = 0.05
average_decay = 0.999
average_warmup = True
val_pipeline = [dict(type='SquashResize', size='$image_size')]
