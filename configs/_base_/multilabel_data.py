# Multi-label data: the paths, which the config of a data set sets, and the published pipelines.
_base_ = ['loaders.py']
train_annotations = None  # COCO instances file, CSV file or VOC image list, relative to data_root
train_images = None
val_annotations = None
val_images = None
test_annotations = None  # file of the test labels, relative to data_root; not used to choose the best epoch
test_images = None  # folder of the test images, relative to data_root
keep_empty = False  # True keeps images without labels; the published recipes leave them out
difficult = 'unknown'  # label of VOC's difficult objects: 'unknown' (ignored) or 'positive'

image_size = 448
batch_size = 56  # images per batch, for each process

train_pipeline = [
    dict(type='SquashResize', size='$image_size'),
    dict(type='Cutout', factor=0.5),
    dict(type='RandAugment'),
]
val_pipeline = [dict(type='SquashResize', size='$image_size')]

labelled = dict(
    type='MultiLabelDataset',
    keep_empty='$keep_empty',
    difficult='$difficult',
    on_bad_image='$on_bad_image',
    outside_paths='$outside_paths',
    source='$data_source')
train_dataloader = dict(
    dataset=dict(labelled, annotation_file='$train_annotations', image_folder='$train_images', reduced_decoding=True))
val_dataloader = dict(dataset=dict(labelled, annotation_file='$val_annotations', image_folder='$val_images'))
test_dataloader = dict(dataset=dict(labelled, annotation_file='$test_annotations', image_folder='$test_images'))
val_evaluator = dict(type='MultilabelMetric', threshold='$threshold', top_k=3)
threshold = 0.5  # probability above which a class counts as predicted
