# TResNet-L at 368 on Oxford Flowers-102, 80 epochs from ImageNet; published top-1 99.1.
_base_ = ['cifar10_tresnet_xl_224.py']
pretrained = 'tresnet://l_in1k_448'

dataset_name = 'Flowers102'
train_split = 'train+val'
model = dict(backbone=dict(variant='l'))
image_size = 368
batch_size = 32
