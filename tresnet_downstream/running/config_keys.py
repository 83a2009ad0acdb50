"""The meaning of each top-level key of a config.

A key's meaning is the comment at the end of its assignment, in the config or in a file that it inherits from. For
keys that MMEngine and MMDetection define, and for keys whose value is a dict or list, :data:`MEANINGS` has it.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

MEANINGS = {
    "auto_scale_lr": "MMDetection's scaling of the learning rate: the batch size that the rate is meant for",
    "average_decay": "decay of the averaged weights, per optimiser step; 0 for none",
    "backend_args": "MMDetection's storage of the data files; None is the local disk",
    "base_lr": "learning rate for the paper's batch size",
    "channels": "channels of the backbone's feature maps",
    "checkpoints": "which checkpoints a detector's training keeps, and the score that chooses the best one",
    "classes": "names of the classes, in the order of the network's outputs",
    "custom_imports": "MMEngine's: modules that are imported first, since they register components of the config",
    "custom_hooks": "hooks besides MMEngine's default ones",
    "data_root": "folder that contains the data; paths of files and folders are relative to it",
    "data_source": "where the data comes from; shown if data_root is missing",
    "dataset_name": "name of torchvision's data set class",
    "dataset_type": "name of MMDetection's data set class",
    "default_hooks": "MMEngine's hooks: checkpoints, logs, timer, schedule",
    "default_scope": "scope of the registries in which types of components are looked up",
    "dropout": "probability of dropout in the head",
    "drop_path_rate": "stochastic depth: the drop probability of the last block",
    "env_cfg": "MMEngine's settings for processes and cuDNN",
    "image_scale": "longest and shortest side of the resized images",
    "image_size": "side of the images in pixels, in training and validation",
    "img_scales": "image sizes of test-time augmentation",
    "interval": "epochs between checkpoints and validations",
    "label_smoothing": "share of the target probability that is spread over all classes",
    "labelled": "settings that the training and validation data sets share",
    "labels": "the classification head of a joint model: head, loss, weights, data",
    "load_from": "checkpoint whose weights the training starts from; None for none",
    "log_level": "lowest level of messages that are logged",
    "log_processor": "MMEngine's smoothing of logged values",
    "max_epochs": "epochs of the schedule",
    "max_lr": "largest learning rate of the schedule",
    "model": "the network: backbone, head or detector, and losses",
    "network": "timm's name of the backbone",
    "num_workers": "processes that read images",
    "of_torchvision": "settings that the training and validation data sets share",
    "optim_wrapper": "the optimiser, its weight decay, precision and gradient accumulation",
    "param_scheduler": "schedule of the learning rate",
    "pixels": "normalisation and padding of a detector's images",
    "pretrained": "weights that the backbone starts from: a file, or a name that tresnet weights lists",
    "randomness": "the seed of all random numbers, and whether cuDNN is deterministic",
    "resume": "whether the training continues from the newest checkpoint; set by the resume option",
    "runner_type": "the class that runs trainings and tests",
    "seed": "seed of all random numbers",
    "stage2_num_epochs": "number of epochs at the end that use train_pipeline_stage2",
    "stop_epoch": "last epoch, if the training ends before its schedule; None for the whole schedule",
    "test_annotations": "file of the test labels, relative to data_root; not used to choose the best epoch",
    "test_cfg": "MMEngine's test loop",
    "test_dataloader": "how test images are read: data set, batches, processes",
    "test_evaluator": "scores of the test images",
    "test_images": "folder of the test images, relative to data_root",
    "test_pipeline": "steps that prepare a test image",
    "test_split": "torchvision's name of the test split, which is not used to choose the best epoch",
    "train_annotations": "file of the training labels, relative to data_root",
    "train_cfg": "MMEngine's training loop: epochs, and epochs between validations",
    "train_dataloader": "how training images are read: data set, batches, processes",
    "train_images": "folder of the training images, relative to data_root",
    "train_pipeline": "steps that prepare and augment a training image",
    "train_pipeline_stage2": "steps that prepare a training image in the last stage2_num_epochs epochs",
    "train_split": "torchvision's name of the training split",
    "tresnet_l": "a detector's backbone: TResNet-L with ImageNet weights",
    "tresnet_l_channels": "channels of its feature maps, for the neck",
    "tresnet_m": "a detector's backbone: TResNet-M with ImageNet weights",
    "tresnet_m_channels": "channels of its feature maps, for the neck",
    "tta_model": "how test-time augmentation merges boxes",
    "tta_pipeline": "augmented versions of a test image",
    "val_annotations": "file of the validation labels, relative to data_root",
    "val_cfg": "MMEngine's validation loop",
    "val_dataloader": "how validation images are read: data set, batches, processes",
    "val_evaluator": "scores of the validation images",
    "val_images": "folder of the validation images, relative to data_root",
    "val_list": "list of the validation images",
    "val_pipeline": "steps that prepare a validation image",
    "val_split": "torchvision's name of the validation split",
    "vis_backends": "MMDetection's log writers",
    "visualizer": "log writers, such as TensorBoard",
    "weight_decay": "weight decay of the convolutions' and linear layers' weights",
}


def meanings_of(path: Path) -> dict[str, str]:
    """The meanings of top-level keys, for a config.

    Args:
        path: path of the config.

    Returns:
        the meanings by key. A comment of the config takes precedence over one of a file that it inherits from, and
        both take precedence over :data:`MEANINGS`.
    """
    meanings = dict(MEANINGS)
    if path.suffix != ".py":
        return meanings
    for file in reversed(list(with_bases(path))):
        meanings |= _comments_of(file)
    return meanings


def with_bases(path: Path) -> Iterator[Path]:
    """A config and the files that it inherits from, except those of other packages."""
    yield path
    if path.suffix != ".py":
        return
    for assignment in _assignments(path.read_text(encoding="utf-8")):
        if assignment[0] == "_base_":
            bases = ast.literal_eval(assignment[1])
            for base in [bases] if isinstance(bases, str) else bases:
                if "::" not in base:
                    yield from with_bases((path.parent / base).resolve())


def summary_of(path: Path) -> str:
    """The first comment of a config, in one line."""
    lines: list[str] = []
    if path.suffix != ".py":
        return ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            lines.append(line.lstrip("# "))
        elif lines or line.strip():
            break
    return " ".join(lines)


def _assignments(text: str) -> Iterator[tuple[str, ast.expr, int]]:
    """Name, value and last line number of each top-level assignment of a config."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.end_lineno:
            yield node.targets[0].id, node.value, node.end_lineno


def _comments_of(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and token.line.strip() != token.string
    }
    return {name: comments[line] for name, _, line in _assignments(text) if line in comments}
