"""What a part of one's own must provide to be used here.

Each is a :class:`typing.Protocol`: nothing has to be inherited. A part is found by its name in a config once it is
registered, in one file of the user's, with a registry of :mod:`tresnet_downstream.registry`::

    from torch import nn
    from tresnet_downstream.registry import MODELS

    @MODELS.register_module()
    class MaxPoolHead(nn.Module):
        def __init__(self, in_channels, num_classes):
            super().__init__()
            self.num_classes = num_classes
            self.fc = nn.Linear(in_channels, num_classes)

        def forward(self, features):
            return self.fc(features.amax((2, 3)))

The file is named by ``custom_imports`` in a config, by ``--import FILE`` of the tools, or imported in Python.
Transforms are Albumentations', or classes like them, in ``TRANSFORMS``; optimisers and schedules torch's and
MMEngine's, in ``OPTIMIZERS`` and ``PARAM_SCHEDULERS``; metrics MMEngine's ``BaseMetric``, in ``METRICS``.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Backbone(Protocol):
    """A network that turns pictures into feature maps; registered in ``MODELS``, a ``torch.nn.Module``.

    Its constructor takes ``out_indices``: stages to return, counted from 0, or from the end by negative numbers. A
    classifier asks for ``(-1,)``.

    Attributes:
        out_indices: the stages that are returned, counted from 0.
        feature_info: for each stage a dict with ``channels``, the width of its feature map.
        name: shown in messages and reports.
    """

    out_indices: tuple[int, ...]
    feature_info: Sequence[dict[str, Any]]
    name: str

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """N x 3 x H x W pictures in RGB, [0, 1], to feature maps N x C x H' x W', one for each of ``out_indices``."""


class Head(Protocol):
    """From the last feature map to one logit for each class; registered in ``MODELS``, a ``torch.nn.Module``.

    Its constructor takes ``in_channels`` and ``num_classes``, besides what the config gives.
    """

    num_classes: int

    def forward(self, features: Tensor) -> Tensor:
        """N x in_channels x H x W to N x num_classes logits."""


class Loss(Protocol):
    """From logits and targets to one number; registered in ``MODELS``, a ``torch.nn.Module``."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """N x C logits and N x C targets in {1, 0, -1}, -1 for unknown, to a scalar."""


class LabelledPictures(Protocol):
    """A data set of pictures with labels; registered in ``DATASETS``, a ``torch.utils.data.Dataset``.

    Its constructor takes ``pipeline``, and ``classes``, by which the validation data has the columns of the training
    data.

    Attributes:
        classes: names, in the order of the targets.
        metainfo: a dict with ``classes``, which MMEngine carries into checkpoints.
        image_folder: where the pictures' names start.
        annotation_file: told in reports.
    """

    classes: tuple[str, ...]
    metainfo: dict[str, Any]
    image_folder: str
    annotation_file: str

    def __len__(self) -> int:
        """Number of pictures."""

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """The sample for ``(epoch, index)``.

        ``inputs``: uint8 of shape 3 x H x W; ``targets``: C values in {1, 0, -1}; ``image``: the picture's name.
        """
