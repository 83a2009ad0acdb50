# What every detector with a TResNet adds to MMDetection's config: its components, scores and checkpoints.
custom_imports = dict(imports=['tresnet_downstream.training.detection'], allow_failed_imports=False)
runner_type = 'tresnet_downstream.DetectionRunner'
randomness = dict(seed=0)
amp = None  # 'bfloat16' or 'float16'
coco_eval = 'pycocotools'  # or 'faster_coco_eval': the same scores in a tenth of the time
custom_hooks = [
    dict(type='tresnet_downstream.DetectionCheckpointHook'),
    dict(type='tresnet_downstream.FiniteLossHook', interval=10),
]
