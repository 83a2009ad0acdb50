import sys

# Settings of a run: seed, checkpoints, logs.
default_scope = 'tresnet_downstream'
seed = 0
keep_checkpoints = 2  # number of newest checkpoints that are kept, besides the best one
load_from = None  # checkpoint whose weights the training starts from, including a head of the same size

randomness = dict(seed='$seed', deterministic=False)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork' if sys.platform == 'linux' else 'spawn', opencv_num_threads=0))
log_level = 'INFO'
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, keep='$keep_checkpoints'),
    logger=dict(type='LoggerHook', interval=50))
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
tracker = dict(type='tensorboard')  # experiment tracker: also 'wandb', 'mlflow', dict(type='wandb', ...), a list, None
