# Keys that every detector with a TResNet adds to a config of MMDetection: components, scores and checkpoints. MMEngine
# refuses a key that two bases define, so this file uses no key of MMDetection: it does not import by `custom_imports`,
# and the runner itself adds the hooks and the seed 0.
# With an import statement, MMEngine would use its other config format.
__import__('tresnet_downstream.detection.training')
runner_type = 'tresnet_downstream.DetectionRunner'
overwrite = False  # True starts a new run, and renames the work dir of an existing run
tracker = dict(type='tensorboard')  # experiment tracker: also 'wandb', 'mlflow', dict(type='wandb', ...), a list, None
amp = None  # mixed precision: 'bfloat16' or 'float16'; None is float32
coco_eval = 'pycocotools'  # package for COCO's scores; 'faster_coco_eval' computes the same in a tenth of the time
voc_rules = None  # '2007' or '2010': also compute the mAP of PASCAL VOC, as voc_mAP
outside_paths = False  # True allows images outside of the image folder, by '..', absolute paths or links
on_bad_image = 'error'  # 'skip' replaces unreadable images in training, leaves them out in scoring, counts both
trust_boxes = False  # True accepts boxes that look like corners, and images whose size differs from the annotation
sampling = None  # 'repeat_factor' repeats images of rare classes in an epoch, by MMDetection's ClassBalancedDataset
repeat_threshold = 1e-3  # class frequency below which sampling='repeat_factor' repeats images, as for LVIS
val_steps = None  # optimiser steps between validations; None validates after epochs, by train_cfg.val_interval
checkpoint_steps = None  # optimiser steps between additional checkpoints within epochs; None for none
checkpoint_minutes = None  # minutes between additional checkpoints within epochs; None for none
patience = None  # early stopping: validations without an improvement after which the training ends; None for never
min_delta = 0.0  # smallest improvement, in percent, that counts for patience
clip_grad = None  # largest norm of the gradients of a step; None for no clipping
lr_factors = dict()  # factors on the learning rate by part of the model: dict(backbone=0.1, head=1.0)
layer_decay = None  # learning rate of each backbone layer relative to the next one, such as 0.8; None for none
layer_decay_unit = 'block'  # unit of a layer for layer_decay: 'block' or 'stage'
freeze = dict()  # number of epochs, or 'always', for which parts of the model are frozen: dict(backbone=3)
freeze_statistics = True  # False keeps frozen parts in training mode, so their norms update the running statistics

# Parts that configs of detectors refer to; a config may change their keys.
# RGB in [0, 1], as the weights expect, padded to sides that the strides of all stages divide.
pixels = dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True, pad_size_divisor=32)
checkpoints = dict(max_keep_ckpts=2, save_best='coco/bbox_mAP')
tresnet_m = dict(
    _delete_=True,
    type='TResNet',
    variant='m',
    out_indices=(0, 1, 2, 3),
    frozen_stages=1,
    norm_eval=True,
    init_cfg=dict(type='Pretrained', checkpoint='tresnet://m_in1k_448'))
tresnet_m_channels = [64, 128, 1024, 2048]
tresnet_l = dict(tresnet_m, variant='l', init_cfg=dict(type='Pretrained', checkpoint='tresnet://l_in1k_448'))
tresnet_l_channels = [76, 152, 1216, 2432]
