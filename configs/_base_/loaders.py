# How pictures are read, of several labels or one; a data set's config adds the data sets and their pipelines.
data_root = ''
data_source = 'it holds your own data'  # printed if data_root is not there
on_bad_image = 'error'  # 'skip' trains and scores without pictures that cannot be read, and counts them
outside_paths = False  # whether names of images may lead out of their folder, by '..', absolute paths or links

batch_size = 64  # of each process
num_workers = 8

train_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='tresnet_downstream.collate_pictures'),
    dataset=dict(data_root='$data_root', seed='$seed', pipeline='$train_pipeline'))
# Of the validation data, by which the best epoch is chosen; and of the test data, which scoring alone reads.
val_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='tresnet_downstream.collate_pictures'),
    dataset=dict(data_root='$data_root', pipeline='$val_pipeline'))
test_dataloader = val_dataloader
