# Labels beside a detector's boxes, from one backbone: named beside the config of a detector, in a config that sets
# runner_type = 'tresnet_downstream.JointRunner'.
__import__('tresnet_downstream.joint')  # with an import statement MMEngine reads a config as another kind
labels = dict(
    head=dict(type='LinearHead'),  # or MLDecoderHead, or your own
    loss=dict(type='AsymmetricLoss', gamma_neg=4, gamma_pos=0, clip=0.05),
    loss_weights=dict(labels=1.0, boxes=1.0),  # or 'learned'
    start_from=dict(labels=None, boxes=None),  # a classifier's file and a detector's
    train=dict(ann_file=None, images=None),  # a file of labels and the folder of its images; None: those of the boxes
    val=dict(ann_file=None),
    test=dict(ann_file=None),  # None: that of val
    rescore=dict(scale=None, shift=None),  # from tools/calibrate.py: box scores times probabilities of their labels
    keep_empty=False,  # True scores the labels of images without any annotation too
    difficult='unknown',  # or 'positive': VOC's objects that are marked as difficult, in the scores of labels
    threshold=0.5,
    top_k=3)
