# Single-label data: the paths, which the config of a data set sets, and the pipelines of the ImageNet recipes.
_base_ = ['loaders.py']
train_images = None  # folder with a subfolder for each class, or the image folder of train_annotations
train_annotations = None  # CSV or COCO file with one label for each image, instead of class folders
val_images = None
val_annotations = None
test_images = None  # folder of the test images, relative to data_root; not used to choose the best epoch
test_annotations = None  # file of the test labels, relative to data_root

image_size = 224

rand_augment = 1.0  # probability of RandAugment for an image; 0 for none
rand_augment_config = 'rand-m9-mstd0.5-inc1'  # settings of RandAugment in timm's notation

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
