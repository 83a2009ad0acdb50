# The recipe of ResNet-RS (arXiv:2103.07579). Each ingredient of the paper's ablation can be turned off by an option:
# average_decay=0, label_smoothing=0, rand_augment=0, dropout=0, drop_path_rate=0; network=resnet50d for no
# squeeze-and-excite, and network=resnet50 for no changes of ResNet-D either.
network = 'resnetrs50'
label_smoothing = 0.1
dropout = 0.25
drop_path_rate = 0.0  # stochastic depth: the drop probability of the last block; 0.1 from ResNet-RS-200 on

model = dict(
    type='ImageClassifier',
    multi_label=False,
    backbone=dict(type='TimmNetwork', model='$network', drop_path_rate='$drop_path_rate'),
    head=dict(type='LinearHead', num_classes=1000, dropout='$dropout'),
    loss=dict(type='CrossEntropy', label_smoothing='$label_smoothing'))
