# Cosine schedule with warm-up, as timm trains.
_base_ = ['schedule.py']
max_epochs = 300
max_lr = 0.1
weight_decay = 2e-5
warmup = 0.02  # share of the training
average_decay = 0.9998  # of the weight average, per step

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr='$max_lr', momentum=0.9, nesterov=True, weight_decay='$weight_decay'))
param_scheduler = [dict(type='Cosine', warmup='$warmup', by_epoch=False)]
