# A single-label data set of torchvision, which the config names.
_base_ = ['single_label_data.py']
data_root = 'data'
dataset_name = 'CIFAR10'
train_split = 'train'
val_split = 'test'
test_split = None  # torchvision's name of the test split, which is not used to choose the best epoch
download = False  # whether torchvision may download the data set into data_root

of_torchvision = dict(
    _delete_=True, type='TorchvisionDataset', name='$dataset_name', data_root='$data_root', download='$download')
train_dataloader = dict(
    dataset=dict(of_torchvision, split='$train_split', seed='$seed', pipeline='$train_pipeline'))
val_dataloader = dict(dataset=dict(of_torchvision, split='$val_split', pipeline='$val_pipeline'))
test_dataloader = dict(dataset=dict(of_torchvision, split='$test_split', pipeline='$val_pipeline'))
