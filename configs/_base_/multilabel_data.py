# Pictures and labels: what a data set's config fills in, and the published pipelines.
data_root = ''
train_annotations = None  # COCO instances file or CSV, relative to data_root
train_images = None
val_annotations = None
val_images = None
data_source = 'it holds your own data'  # printed if data_root is not there
keep_empty = False  # pictures without any label: left out, as published, or kept
difficult = 'unknown'  # what VOC's objects marked as difficult say of an image: 'unknown' (neither) or 'positive'
on_bad_image = 'error'  # 'skip' trains and scores without pictures that cannot be read, and counts them
outside_paths = False  # whether names of images may lead out of their folder, by '..', absolute paths or links

image_size = 448
batch_size = 56  # of each process
num_workers = 8

train_pipeline = [
    dict(type='SquashResize', size='$image_size'),
    dict(type='Cutout', factor=0.5),
    dict(type='RandAugment'),
]
val_pipeline = [dict(type='SquashResize', size='$image_size')]

train_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='tresnet_downstream.collate_pictures'),
    dataset=dict(
        type='MultiLabelDataset',
        data_root='$data_root',
        annotation_file='$train_annotations',
        image_folder='$train_images',
        keep_empty='$keep_empty',
        difficult='$difficult',
        on_bad_image='$on_bad_image',
        outside_paths='$outside_paths',
        reduced_decoding=True,
        seed='$seed',
        source='$data_source',
        pipeline='$train_pipeline'))
val_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='tresnet_downstream.collate_pictures'),
    dataset=dict(
        type='MultiLabelDataset',
        data_root='$data_root',
        annotation_file='$val_annotations',
        image_folder='$val_images',
        keep_empty='$keep_empty',
        difficult='$difficult',
        on_bad_image='$on_bad_image',
        outside_paths='$outside_paths',
        source='$data_source',
        pipeline='$val_pipeline'))
val_evaluator = dict(type='MultilabelMetric', threshold='$threshold', top_k=3)
threshold = 0.5  # probability above which a class counts as predicted
