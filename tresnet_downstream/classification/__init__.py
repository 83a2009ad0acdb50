"""Multi-label classification: data, classifier, losses, metric."""

from tresnet_downstream.classification.classifier import ImageClassifier, ImagePreprocessor
from tresnet_downstream.classification.datasets import EpochSampler, MultiLabelDataset
from tresnet_downstream.classification.heads import BottleneckHead, LinearHead, MLDecoderHead
from tresnet_downstream.classification.joined_datasets import ConcatDataset, RepeatDataset
from tresnet_downstream.classification.losses import (
    AsymmetricLoss,
    AsymmetricLossSingleLabel,
    BinaryCrossEntropy,
    FocalLoss,
)
from tresnet_downstream.classification.metrics import MultilabelMetric

__all__ = [
    "AsymmetricLoss",
    "AsymmetricLossSingleLabel",
    "BinaryCrossEntropy",
    "BottleneckHead",
    "ConcatDataset",
    "EpochSampler",
    "FocalLoss",
    "ImageClassifier",
    "ImagePreprocessor",
    "LinearHead",
    "MLDecoderHead",
    "MultiLabelDataset",
    "MultilabelMetric",
    "RepeatDataset",
]
