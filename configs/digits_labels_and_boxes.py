# Labels and boxes in one pass: the digits' RetinaNet with a head of labels on its backbone.
_base_ = ['digits_retinanet_tresnet.py', '_base_/labels_and_boxes.py']
runner_type = 'tresnet_downstream.JointRunner'

# The head learns faster, and pulls less at the backbone: docs/joint.md has what other values gave.
labels = dict(loss=dict(gamma_neg=2), loss_weights=dict(labels=0.5))
lr_factors = dict(label_head=5.0)
