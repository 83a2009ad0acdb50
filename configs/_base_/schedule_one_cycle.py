# Optimiser and schedule of the ASL and ML-Decoder releases.
_base_ = ['schedule.py']
max_epochs = 40
max_lr = 1e-4
weight_decay = 1e-4
average_decay = 0.9997  # decay of the averaged weights, per optimiser step; 0 for none

optim_wrapper = dict(optimizer=dict(type='Adam', lr='$max_lr', weight_decay='$weight_decay'))
param_scheduler = [dict(type='OneCycle', max_lr='$max_lr', pct_start=0.2, by_epoch=False)]
