# A joint model: a detector with a classification head on the same backbone. A config inherits from this file and from
# the config of a detector, and sets runner_type = 'tresnet_downstream.JointRunner'.
__import__('tresnet_downstream.joint')  # with an import statement, MMEngine would use its other config format
labels = dict(
    head=dict(type='LinearHead'),  # or MLDecoderHead, or your own head
    loss=dict(type='AsymmetricLoss', gamma_neg=4, gamma_pos=0, clip=0.05),
    loss_weights=dict(labels=1.0, boxes=1.0),  # or 'learned'
    start_from=dict(labels=None, boxes=None),  # checkpoints of a classifier and a detector to start from
    train=dict(ann_file=None, images=None),  # label file and its image folder; None: those of the boxes
    val=dict(ann_file=None),
    test=dict(ann_file=None),  # None: the file of val
    rescore=dict(scale=None, shift=None),  # from tresnet calibrate; multiplies box scores by label probabilities
    keep_empty=False,  # True also scores the labels of images without annotations
    difficult='unknown',  # or 'positive': label of VOC's difficult objects in the scores of labels
    threshold=0.5,
    top_k=3)
