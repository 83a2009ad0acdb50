# What every detector with a TResNet adds to a config of MMDetection: its components, scores and checkpoints. MMEngine
# takes no key from two bases, so no key here is one of MMDetection's: the import is no `custom_imports`, and the runner
# adds its hooks and the seed 0 by itself.
__import__('tresnet_downstream.detection.training')  # with an import statement MMEngine reads a config as another kind
runner_type = 'tresnet_downstream.DetectionRunner'
overwrite = False  # True moves a run that the work dir holds aside
tracker = dict(type='tensorboard')  # where runs are logged: 'wandb', 'mlflow', dict(type='wandb', ...), a list, None
amp = None  # 'bfloat16' or 'float16'
coco_eval = 'pycocotools'  # or 'faster_coco_eval': the same scores in a tenth of the time
voc_rules = None  # '2007' or '2010' also scores the boxes by PASCAL VOC's rules, as voc_mAP
outside_paths = False  # whether names of images may lead out of their folder, by '..', absolute paths or links
on_bad_image = 'error'  # 'skip' trains and scores without pictures that cannot be read, and counts them
trust_boxes = False  # True takes boxes as they are, also where they look like corners, and pictures of other sizes
sampling = None  # 'repeat_factor' repeats images of rare classes in an epoch, by MMDetection's ClassBalancedDataset
repeat_threshold = 1e-3  # of it: share of the images below which a class is rare; LVIS's
val_steps = None  # optimiser steps between validations; None validates after epochs, by train_cfg.val_interval
checkpoint_steps = None  # optimiser steps between further checkpoints within epochs
checkpoint_minutes = None  # the same in minutes
patience = None  # validations without a better score of the best checkpoint after which the training ends
min_delta = 0.0  # what a score must be better by to count for that, in its unit: percent
clip_grad = None  # largest norm of the gradients of a step; None for no clipping
lr_factors = dict()  # factors on the learning rate by part of the model: dict(backbone=0.1, head=1.0)
layer_decay = None  # factor on the learning rate from each layer of the backbone to the one before it, such as 0.8
layer_decay_unit = 'block'  # what a layer is: 'block' or 'stage'
freeze = dict()  # epochs for which parts of the model are frozen, or 'always': dict(backbone=3)
freeze_statistics = True  # False: frozen parts stay in training mode, and their norms' statistics move

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
