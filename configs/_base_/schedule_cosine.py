# Cosine schedule with warm-up, as timm trains. The schedule is as long as max_epochs, so change max_epochs for a
# shorter run; stop_epoch ends a run before its schedule does.
max_epochs = 300
stop_epoch = None
val_steps = None  # optimiser steps between validations; None validates after each epoch
checkpoint_steps = None  # optimiser steps between further checkpoints within epochs
checkpoint_minutes = None  # the same in minutes
max_lr = 0.1
weight_decay = 2e-5
warmup = 0.02  # share of the training
accumulation = 1  # batches whose gradients are averaged for one step
clip_grad = None  # such as dict(max_norm=1.0)
amp = None  # 'bfloat16' or 'float16'
average_decay = 0.9998  # of the weight average, per step
average_warmup = False  # True for runs of less than some ten thousand steps

optim_wrapper = dict(
    type='RecipeOptimWrapper',
    constructor='MatrixDecayConstructor',
    optimizer=dict(type='SGD', lr='$max_lr', momentum=0.9, nesterov=True, weight_decay='$weight_decay'),
    accumulative_counts='$accumulation',
    clip_grad='$clip_grad',
    amp='$amp')
param_scheduler = [dict(type='Cosine', warmup='$warmup', by_epoch=False)]
train_cfg = dict(by_epoch=True, max_epochs='$max_epochs', val_interval=1)
val_cfg = dict(type='ScoreLoop', amp='$amp')
custom_hooks = [
    dict(type='SeedHook'),
    dict(type='StopHook', epoch='$stop_epoch'),
    dict(type='WeightAverageHook', decay='$average_decay', warmup='$average_warmup'),
    dict(type='PlainBlocksHook'),
    dict(type='ProgressHook'),
]
