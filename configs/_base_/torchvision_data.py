# One of torchvision's data sets of pictures with one label each; a config names it.
_base_ = ['single_label_data.py']
data_root = 'data'
dataset_name = 'CIFAR10'
train_split = 'train'
val_split = 'test'
download = False  # whether torchvision may fetch the data set into data_root

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='TorchvisionDataset',
        name='$dataset_name',
        split='$train_split',
        data_root='$data_root',
        download='$download',
        seed='$seed',
        pipeline='$train_pipeline'))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='TorchvisionDataset',
        name='$dataset_name',
        split='$val_split',
        data_root='$data_root',
        download='$download',
        pipeline='$val_pipeline'))
