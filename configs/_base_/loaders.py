# Reading of images, for multi-label and single-label classifiers. Each data set's config adds data sets and pipelines.
data_root = ''
data_source = 'it must contain your own data'  # where the data comes from; printed if data_root is missing
on_bad_image = 'error'  # 'skip' replaces unreadable images in training, leaves them out in scoring, counts both
outside_paths = False  # True allows images outside of the image folder, by '..', absolute paths or links

# Rare classes, see docs/imbalance.md.
sampling = None  # 'repeat_factor' or 'class_balanced': images of rare classes occur more often in an epoch
repeat_threshold = None  # class frequency below which sampling='repeat_factor' repeats images; None: median frequency
class_weights = {}  # weights in the loss: 'inverse', 'effective', {class name: weight} or a list; {} for none
effective_beta = 0.999  # beta of class_weights='effective' (Cui et al., 2019)
initial_bias = None  # 'frequencies' initialises the head's bias to predict the class frequencies
frequency_cutoffs = None  # (10, 100): tail classes have up to 10 training images, middle ones 100; None: thirds

batch_size = 64  # images per batch, for each process
num_workers = 8

train_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    drop_last=False,
    sampler=dict(
        type='EpochSampler', shuffle=True, sampling='$sampling', repeat_threshold='$repeat_threshold'),
    collate_fn=dict(type='tresnet_downstream.collate_images'),
    dataset=dict(data_root='$data_root', seed='$seed', pipeline='$train_pipeline'))
# For the validation data, which chooses the best epoch, and for the test data, which only scoring reads.
val_dataloader = dict(
    batch_size='$batch_size',
    num_workers='$num_workers',
    persistent_workers=True,
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='tresnet_downstream.collate_images'),
    dataset=dict(data_root='$data_root', pipeline='$val_pipeline'))
test_dataloader = val_dataloader
