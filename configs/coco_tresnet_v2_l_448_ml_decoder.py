# TResNet-V2-L at 448 with ML-Decoder, the recipe of that release; published mAP 90.1.
_base_ = ['coco_tresnet_l_448.py']
pretrained = 'tresnet://v2_l_ml_decoder_start'

model = dict(
    backbone=dict(variant='v2_l'),
    head=dict(_delete_=True, type='MLDecoderHead', num_classes=80))

batch_size = 56
max_epochs = 40
stop_epoch = None
