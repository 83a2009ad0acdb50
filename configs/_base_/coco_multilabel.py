# MS-COCO as a multi-label data set; the published scores are on 2014.
_base_ = ['multilabel_data.py']
data_root = 'data/coco'
coco_year = 2014  # year of MS-COCO: 2014 or 2017
data_source = (
    'MS-COCO is downloaded from cocodataset.org '
    '(train${coco_year}.zip, val${coco_year}.zip, annotations_trainval${coco_year}.zip)')
train_annotations = 'annotations/instances_train${coco_year}.json'
train_images = 'train${coco_year}'
val_annotations = 'annotations/instances_val${coco_year}.json'
val_images = 'val${coco_year}'
threshold = 0.8  # probability above which a class counts as predicted; the ASL release's for CF1 and OF1
