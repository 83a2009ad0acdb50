# Pictures with one label each: what a data set's config fills in, and the pipelines of the ImageNet recipes.
_base_ = ['loaders.py']
train_images = None  # a folder of images for each class, relative to data_root; or what train_annotations names
train_annotations = None  # a CSV or COCO file with one label for each image, in place of class folders
val_images = None
val_annotations = None
test_images = None  # images that no epoch is chosen by, for a score at the end
test_annotations = None  # file of the test labels, relative to data_root

image_size = 224

rand_augment = 1.0  # share of the images that RandAugment changes; 0 for none
rand_augment_config = 'rand-m9-mstd0.5-inc1'  # timm's string of RandAugment's settings

train_pipeline = [
    dict(type='RandomCropAndResize', size='$image_size', scale=(0.08, 1.0)),
    dict(type='HorizontalFlip', p=0.5),
    dict(type='TimmAutoAugment', config='$rand_augment_config', size='$image_size', p='$rand_augment'),
]
val_pipeline = [dict(type='ResizeAndCrop', size='$image_size', fraction=0.875)]

labelled = dict(
    type='SingleLabelDataset',
    on_bad_image='$on_bad_image',
    outside_paths='$outside_paths',
    source='$data_source')
train_dataloader = dict(
    dataset=dict(labelled, annotation_file='$train_annotations', image_folder='$train_images'))
val_dataloader = dict(dataset=dict(labelled, annotation_file='$val_annotations', image_folder='$val_images'))
test_dataloader = dict(dataset=dict(labelled, annotation_file='$test_annotations', image_folder='$test_images'))
val_evaluator = dict(type='SingleLabelMetric')
