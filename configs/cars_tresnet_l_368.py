# TResNet-L at 368 on Stanford Cars, 80 epochs from ImageNet; published top-1 96.0.
# The data set can no longer be downloaded: torchvision reads your copy in data_root/stanford_cars, and needs scipy.
_base_ = ['flowers_tresnet_l_368.py']
dataset_name = 'StanfordCars'
train_split = 'train'
