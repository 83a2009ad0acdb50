"""Image classification with several labels per image or one: data sets, classifier, losses, metrics."""

from tresnet_downstream.classification.batch_transforms import Mixup, RandomErasing
from tresnet_downstream.classification.classifier import ImageClassifier, ImagePreprocessor
from tresnet_downstream.classification.datasets import EpochSampler, MultiLabelDataset
from tresnet_downstream.classification.heads import BottleneckHead, LinearHead, MLDecoderHead
from tresnet_downstream.classification.joined_datasets import ConcatDataset, RepeatDataset
from tresnet_downstream.classification.losses import (
    AsymmetricLoss,
    BinaryCrossEntropy,
    FocalLoss,
)
from tresnet_downstream.classification.metrics import MultilabelMetric
from tresnet_downstream.classification.single_label_datasets import SingleLabelDataset, TorchvisionDataset
from tresnet_downstream.classification.single_label_losses import (
    AsymmetricLossSingleLabel,
    BinaryCrossEntropySingleLabel,
    CrossEntropy,
)
from tresnet_downstream.classification.timm_transforms import TimmAutoAugment

__all__ = [
    "AsymmetricLoss",
    "AsymmetricLossSingleLabel",
    "BinaryCrossEntropy",
    "BinaryCrossEntropySingleLabel",
    "BottleneckHead",
    "ConcatDataset",
    "CrossEntropy",
    "EpochSampler",
    "FocalLoss",
    "ImageClassifier",
    "ImagePreprocessor",
    "LinearHead",
    "MLDecoderHead",
    "Mixup",
    "MultiLabelDataset",
    "MultilabelMetric",
    "RandomErasing",
    "RepeatDataset",
    "SingleLabelDataset",
    "TimmAutoAugment",
    "TorchvisionDataset",
]
