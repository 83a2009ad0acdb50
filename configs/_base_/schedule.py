# What both schedules share. A schedule is as long as max_epochs, so change max_epochs for a shorter run; stop_epoch
# ends a run before its schedule does.
stop_epoch = None
val_steps = None  # optimiser steps between validations; None validates after each epoch
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
accumulation = 1  # batches whose gradients are added up, or of a mean loss averaged, for one step
amp = None  # 'bfloat16' or 'float16'
average_warmup = False  # True for runs of less than some ten thousand steps

optim_wrapper = dict(
    type='RecipeOptimWrapper',
    constructor='MatrixDecayConstructor',
    accumulative_counts='$accumulation',
    amp='$amp')
train_cfg = dict(by_epoch=True, max_epochs='$max_epochs', val_interval=1)
val_cfg = dict(type='ScoreLoop', amp='$amp')
custom_hooks = [
    dict(type='SeedHook'),
    dict(type='StopHook', epoch='$stop_epoch'),
    dict(type='WeightAverageHook', decay='$average_decay', warmup='$average_warmup'),
    dict(type='PlainBlocksHook'),
    dict(type='ProgressHook'),
]
