# Pictures with one label each: what a data set's config fills in, and the pipelines of the ImageNet recipes.
data_root = ''
train_images = None  # a folder of images for each class, relative to data_root; or what train_annotations names
train_annotations = None  # a CSV or COCO file with one label for each image, in place of class folders
val_images = None
val_annotations = None
data_source = 'it holds your own data'  # printed if data_root is not there
on_bad_image = 'error'  # 'skip' trains and scores without pictures that cannot be read, and counts them
outside_paths = False  # whether names of images may lead out of their folder, by '..', absolute paths or links

image_size = 224
batch_size = 64  # of each process
num_workers = 8

rand_augment = 1.0  # share of the pictures that RandAugment changes; 0 for none
rand_augment_config = 'rand-m9-mstd0.5-inc1'  # timm's string, see TimmAutoAugment

train_pipeline = [
    dict(type='RandomCropAndResize', size='$image_size', scale=(0.08, 1.0)),
    dict(type='HorizontalFlip', p=0.5),
    dict(type='TimmAutoAugment', config='$rand_augment_config', size='$image_size', p='$rand_augment'),
]
val_pipeline = [dict(type='ResizeAndCrop', size='$image_size', fraction=0.875)]

train_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='tresnet_downstream.collate_pictures'),
    dataset=dict(
        type='SingleLabelDataset',
        data_root='$data_root',
        annotation_file='$train_annotations',
        image_folder='$train_images',
        on_bad_image='$on_bad_image',
        outside_paths='$outside_paths',
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
        type='SingleLabelDataset',
        data_root='$data_root',
        annotation_file='$val_annotations',
        image_folder='$val_images',
        on_bad_image='$on_bad_image',
        outside_paths='$outside_paths',
        source='$data_source',
        pipeline='$val_pipeline'))
val_evaluator = dict(type='SingleLabelMetric')
