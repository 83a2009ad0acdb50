# TResNet-XL at 224 on CIFAR-100, 80 epochs from ImageNet; published top-1 91.5.
_base_ = ['cifar10_tresnet_xl_224.py']
dataset_name = 'CIFAR100'
