# Pictures and labels: what a data set's config fills in, and the published pipelines.
_base_ = ['loaders.py']
train_annotations = None  # COCO instances file, CSV or list of VOC, relative to data_root
train_images = None
val_annotations = None
val_images = None
test_annotations = None  # images that no epoch is chosen by, for a score at the end
test_images = None  # folder of the test images, relative to data_root
keep_empty = False  # True keeps images without any label; the published recipes leave them out
difficult = 'unknown'  # label of VOC's objects that are marked as difficult: 'unknown' (left out) or 'positive'

image_size = 448
batch_size = 56  # images per batch of each process

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
