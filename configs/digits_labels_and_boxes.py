# Labels and boxes in one pass: the digits' RetinaNet with a head of labels on its backbone.
_base_ = ['digits_retinanet_tresnet.py', '_base_/labels_and_boxes.py']
runner_type = 'tresnet_downstream.JointRunner'

labels = dict(loss=dict(gamma_neg=2))
