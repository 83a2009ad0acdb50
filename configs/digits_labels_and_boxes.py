# Labels and boxes in one pass: the digits' RetinaNet with a head of labels on its backbone.
_base_ = ['digits_retinanet_tresnet.py']
runner_type = 'tresnet_downstream.JointRunner'
__import__('tresnet_downstream.joint')

labels = dict(
    head=dict(type='LinearHead'),
    loss=dict(type='AsymmetricLoss', gamma_neg=2, gamma_pos=0, clip=0.05),
    loss_weights=dict(labels=1.0, boxes=1.0))
