# Your own images with one label each, in a folder for each class: set data_root, which contains train/ and val/.
_base_ = ['_base_/single_label_data.py', '_base_/runtime.py', '_base_/schedule_cosine.py']
pretrained = None  # 'tresnet://m_in1k_224' or a file; without pretrained weights many more epochs are needed

model = dict(
    type='ImageClassifier',
    multi_label=False,
    backbone=dict(
        type='TResNet', variant='m', init_cfg=dict(type='Pretrained', checkpoint='$pretrained')),
    head=dict(type='LinearHead', num_classes=None),
    loss=dict(type='CrossEntropy', label_smoothing=0.1))

train_images = 'train'
val_images = 'val'
image_size = 224
batch_size = 32
num_workers = 2
max_lr = 1e-2
max_epochs = 40
average_warmup = True
