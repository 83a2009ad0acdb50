# What both schedules share. A schedule is as long as max_epochs, so change max_epochs for a shorter run; stop_epoch
# ends a run before its schedule does.
stop_epoch = None
val_steps = None  # optimiser steps between validations; None validates after each epoch
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
accumulation = 1  # batches whose gradients are added up, or of a mean loss averaged, for one step
amp = None  # mixed precision: 'bfloat16' or 'float16'; None is float32
average_warmup = False  # True averages over fewer steps at first, for runs of less than some ten thousand steps

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
