# RetinaNet on PASCAL VOC 2007: trained on its split `train`, scored on `val` with the metrics of COCO and VOC 2007.
_base_ = ['retinanet_tresnet_m.py']

data_root = 'VOCdevkit/VOC2007/'
voc_rules = '2007'  # AP at 11 recalls; '2010' is the area under the curve
image_scale = (1000, 600)
val_list = 'ImageSets/Main/val.txt'

model = dict(bbox_head=dict(num_classes=20))
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(img='JPEGImages/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=image_scale, keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file=val_list,
        data_prefix=dict(img='JPEGImages/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=image_scale, keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_list)
test_evaluator = val_evaluator

# MMDetection's RetinaNet has a test-time augmentation with COCO's image sizes.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=image_scale, keep_ratio=True)],
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=(
                        *('img_id', 'img_path', 'ori_shape', 'img_shape'),
                        *('scale_factor', 'flip', 'flip_direction'),
                    )),
            ],
        ]),
]
