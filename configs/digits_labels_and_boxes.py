# A joint model on the sample data: the detector of digits_retinanet_tresnet.py with a label head on its backbone.
_base_ = ['digits_retinanet_tresnet.py', '_base_/labels_and_boxes.py']
runner_type = 'tresnet_downstream.JointRunner'

# The classification head has a larger learning rate, and its loss a smaller weight; docs/joint.md compares others.
labels = dict(loss=dict(gamma_neg=2), loss_weights=dict(labels=0.5))
lr_factors = dict(label_head=5.0)
