# ImageNet-1k in class folders: train/ and val/ with the 1,000 folders that are named by their WordNet numbers.
_base_ = ['single_label_data.py']
data_root = 'data/imagenet'
data_source = 'ImageNet is downloaded from image-net.org, and its validation images are sorted into class folders'
train_images = 'train'
val_images = 'val'
