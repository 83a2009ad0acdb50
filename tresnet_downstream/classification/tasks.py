"""The two tasks of a classifier: several labels for each image, or one."""

from dataclasses import dataclass

from mmengine.config import Config
from torch import nn

from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.classification.losses import MultiLabelLoss
from tresnet_downstream.classification.metrics import MultilabelMetric, SingleLabelMetric, TaskMetric
from tresnet_downstream.classification.single_label_datasets import SingleLabelDataset
from tresnet_downstream.classification.single_label_losses import SingleLabelLoss


@dataclass(frozen=True)
class Task:
    """The differences between the tasks.

    Attributes:
        name: name in messages.
        other: name of the other task.
        multi_label: the value of ``model.multi_label``.
        dataset: the default class of data sets.
        metric: the metric whose scores are written and compared.
        losses: names of the losses.
        other_loss: base class of the losses of the other task.
    """

    name: str
    other: str
    multi_label: bool
    dataset: type[MultiLabelDataset]
    metric: type[TaskMetric]
    losses: tuple[str, ...]
    other_loss: type[nn.Module]


_SEVERAL, _ONE = "several labels per image", "one class per image"
MULTI_LABEL = Task(
    *(_SEVERAL, _ONE, True, MultiLabelDataset, MultilabelMetric),
    ("AsymmetricLoss", "BinaryCrossEntropy", "FocalLoss"),
    SingleLabelLoss,
)
SINGLE_LABEL = Task(
    *(_ONE, _SEVERAL, False, SingleLabelDataset, SingleLabelMetric),
    ("CrossEntropy", "BinaryCrossEntropySingleLabel", "AsymmetricLossSingleLabel"),
    MultiLabelLoss,
)


def task_of(config: Config) -> Task:
    """The task of a config, by its ``model.multi_label``, which is True by default."""
    return MULTI_LABEL if config.model.get("multi_label", True) else SINGLE_LABEL
