# How pictures are read, of several labels or one; a data set's config adds the data sets and their pipelines.
data_root = ''
data_source = 'it holds your own data'  # where the data comes from; printed if data_root is missing
on_bad_image = 'error'  # 'skip' leaves out images that cannot be read, in training and scoring, and counts them
outside_paths = False  # whether names of images may lead out of their folder, by '..', absolute paths or links

# Rare classes, see docs/imbalance.md.
sampling = None  # 'repeat_factor' or 'class_balanced': images of rare classes come more often in an epoch
repeat_threshold = None  # repeat_factor repeats classes that a smaller share of the images shows; None: their median
class_weights = {}  # in the loss: 'inverse', 'effective', {class name: weight} or a list of numbers; {} for none
effective_beta = 0.999  # beta of class_weights='effective' (Cui et al., 2019)
initial_bias = None  # 'frequencies': the head's first probabilities are the frequencies of the classes
frequency_cutoffs = None  # (10, 100): tail up to 10 training images, middle up to 100; None: thirds of the classes

batch_size = 64  # images per batch of each process
num_workers = 8

train_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    drop_last=False,
    sampler=dict(
        type='EpochSampler', shuffle=True, sampling='$sampling', repeat_threshold='$repeat_threshold'),
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
