# Cosine schedule with warm-up, as in timm.
_base_ = ['schedule.py']
max_epochs = 300
max_lr = 0.1
weight_decay = 2e-5
warmup = 0.02  # fraction of the training in which the learning rate increases
average_decay = 0.9998  # decay of the averaged weights, per optimiser step; 0 for none

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr='$max_lr', momentum=0.9, nesterov=True, weight_decay='$weight_decay'))
param_scheduler = [dict(type='Cosine', warmup='$warmup', by_epoch=False)]
