# ResNet-RS-50 at 160 on ImageNet-1k; published top-1 78.8. tresnet scale prints the other depths and sizes.
_base_ = ['_base_/imagenet.py', '_base_/schedule_cosine.py', '_base_/recipe_resnet_rs.py', '_base_/runtime.py']

network = 'resnetrs50'
rand_augment_config = 'rand-m10-n2'  # the paper's magnitude: 10 for small networks, 15 for large ones
image_size = 160
batch_size = 512  # images per batch, for each of 8 processes
