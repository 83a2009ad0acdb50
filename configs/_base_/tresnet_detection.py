# What every detector with a TResNet adds to a config of MMDetection: its components, scores and checkpoints. MMEngine
# takes no key from two bases, so no key here is one of MMDetection's: the import is no `custom_imports`, and the runner
# adds its hooks and the seed 0 by itself.
__import__('tresnet_downstream.detection.training')  # with an import statement MMEngine reads a config as another kind
runner_type = 'tresnet_downstream.DetectionRunner'
overwrite = False  # True starts anew, and moves a run that the work dir holds aside
tracker = dict(type='tensorboard')  # where runs are logged: 'wandb', 'mlflow', dict(type='wandb', ...), a list, None
amp = None  # mixed precision: 'bfloat16' or 'float16'; None is float32
coco_eval = 'pycocotools'  # package of COCO's scores; 'faster_coco_eval' gives the same in a tenth of the time
voc_rules = None  # '2007' or '2010': also score the boxes by PASCAL VOC's rules, as voc_mAP
outside_paths = False  # whether names of images may lead out of their folder, by '..', absolute paths or links
on_bad_image = 'error'  # 'skip' leaves out images that cannot be read, in training and scoring, and counts them
trust_boxes = False  # True accepts boxes that look like corners, and images of another size than annotated
sampling = None  # 'repeat_factor' repeats images of rare classes in an epoch, by MMDetection's ClassBalancedDataset
repeat_threshold = 1e-3  # share of the images below which sampling='repeat_factor' takes a class as rare, as in LVIS
val_steps = None  # optimiser steps between validations; None validates after epochs, by train_cfg.val_interval
checkpoint_steps = None  # optimiser steps between further checkpoints within epochs
checkpoint_minutes = None  # minutes between further checkpoints within epochs
patience = None  # validations without a better score of the best checkpoint after which the training ends
min_delta = 0.0  # least improvement, in percent, that counts for patience
clip_grad = None  # largest norm of the gradients of a step; None for no clipping
lr_factors = dict()  # factors on the learning rate by part of the model: dict(backbone=0.1, head=1.0)
layer_decay = None  # factor on the learning rate from each layer of the backbone to the one before it, such as 0.8
layer_decay_unit = 'block'  # what layer_decay takes as a layer: 'block' or 'stage'
freeze = dict()  # epochs for which parts of the model are frozen, or 'always': dict(backbone=3)
freeze_statistics = True  # False keeps frozen parts in training mode: the statistics of their norms move

# The parts below are put into a model by name; a config's own keys may change them.
# RGB in [0, 1], as the weights want, and sides that every stage divides.
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
