# Optimiser and schedule of the ASL and ML-Decoder releases. The schedule is as long as max_epochs, so change
# max_epochs for a shorter run; stop_epoch ends a run before its schedule does.
max_epochs = 40
stop_epoch = None
val_steps = None  # optimiser steps between validations; None validates after each epoch
checkpoint_steps = None  # optimiser steps between further checkpoints within epochs
checkpoint_minutes = None  # the same in minutes
max_lr = 1e-4
weight_decay = 1e-4
accumulation = 1  # batches whose gradients are added up for one step
amp = None  # 'bfloat16' or 'float16'
average_decay = 0.9997  # of the weight average, per step
average_warmup = False  # True for runs of less than some ten thousand steps

optim_wrapper = dict(
    type='RecipeOptimWrapper',
    constructor='MatrixDecayConstructor',
    optimizer=dict(type='Adam', lr='$max_lr', weight_decay='$weight_decay'),
    accumulative_counts='$accumulation',
    amp='$amp')
param_scheduler = [dict(type='OneCycle', max_lr='$max_lr', pct_start=0.2, by_epoch=False)]
train_cfg = dict(by_epoch=True, max_epochs='$max_epochs', val_interval=1)
val_cfg = dict(type='ScoreLoop', amp='$amp')
custom_hooks = [
    dict(type='SeedHook'),
    dict(type='StopHook', epoch='$stop_epoch'),
    dict(type='WeightAverageHook', decay='$average_decay', warmup='$average_warmup'),
    dict(type='PlainBlocksHook'),
    dict(type='ProgressHook'),
]
