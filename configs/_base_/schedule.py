# Settings that both schedules share. The schedule lasts max_epochs; change max_epochs for a shorter run. stop_epoch
# ends a run before its schedule ends.
stop_epoch = None
val_steps = None  # optimiser steps between validations; None validates after each epoch
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
accumulation = 1  # number of batches per optimiser step, whose gradients are summed (or averaged, for a mean loss)
amp = None  # mixed precision: 'bfloat16' or 'float16'; None is float32
average_warmup = False  # True averages over fewer steps at the start, for runs below about ten thousand steps

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
