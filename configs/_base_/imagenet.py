# ImageNet-1k in class folders: train/ and val/ contain the 1,000 folders named by WordNet ids.
_base_ = ['single_label_data.py']
data_root = 'data/imagenet'
data_source = 'ImageNet is downloaded from image-net.org, and its validation images are sorted into class folders'
train_images = 'train'
val_images = 'val'
