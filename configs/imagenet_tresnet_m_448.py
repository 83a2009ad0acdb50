# Fine-tunes TResNet-M from 224 to 448 on ImageNet-1k in 10 epochs; published top-1 81.7 (with squashed images).
_base_ = ['imagenet_tresnet_m_224.py']
load_from = 'tresnet://m_in1k_224'

image_size = 448
batch_size = 48  # images per batch, for each of 8 processes
max_lr = 1e-2
max_epochs = 10
warmup = 0.1
average_decay = 0.999
val_pipeline = [dict(type='SquashResize', size='$image_size')]
