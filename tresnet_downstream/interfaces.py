"""What a part of one's own must provide to be used here.

Each is a :class:`typing.Protocol`: nothing has to be inherited. A part is a class in one Python file of the user's,
which registers it by ``@MODELS.register_module()`` or another registry of :mod:`tresnet_downstream.registry`; a config
names it by ``type``. The file is named by ``--import FILE`` of the tools, by ``custom_imports`` in a config, or
imported in Python. ``docs/extending/`` has a complete example of each part.

Metrics are MMEngine's ``BaseMetric`` in ``METRICS``. With each picture of a batch, ``process`` gets a dict from each
set of weights (``raw``, ``averaged``) to the picture's C probabilities.
:class:`classification.metrics.ProbabilityMetric` collects them. Transforms are Albumentations', or classes like them,
in ``TRANSFORMS``; optimisers and schedules are torch's and MMEngine's, in ``OPTIMIZERS`` and ``PARAM_SCHEDULERS``.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class Backbone(Protocol):
    """A network that turns pictures into feature maps; registered in ``MODELS``, a ``torch.nn.Module``.

    Its constructor takes ``out_indices``: stages to return, counted from 0, or from the end by negative numbers. A
    classifier asks for ``(-1,)``.

    Attributes:
        out_indices: the stages that are returned, counted from 0.
        feature_info: for each stage a dict with ``channels``, the width of its feature map.
        name: shown in messages and reports.

    For ``layer_decay`` it needs a method ``layer_numbers(unit)``: the number of the layer of each parameter by its
    name, in the order of execution; ``unit`` is ``block`` or ``stage``.
    """

    out_indices: tuple[int, ...]
    feature_info: Sequence[dict[str, Any]]
    name: str

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """N x 3 x H x W pictures in RGB, [0, 1], to feature maps N x C x H' x W', one for each of ``out_indices``."""


class Head(Protocol):
    """From the last feature map to one logit for each class; registered in ``MODELS``, a ``torch.nn.Module``.

    Its constructor takes ``in_channels`` and ``num_classes``, besides what the config gives. The head of a release that
    is to be read from its files has an entry in :data:`weights.head_names.HEADS` too, and a class method
    ``arguments_from(weights)``: from the head's tensors, by name, to the arguments but ``in_channels``. One that is to
    begin with the frequencies of the classes (``initial_bias``) has an attribute ``class_bias``: the parameter of
    num_classes numbers that is added to the logits.
    """

    num_classes: int

    def forward(self, features: Tensor) -> Tensor:
        """N x in_channels x H x W to N x num_classes logits."""


@runtime_checkable
class AttendingHead(Protocol):
    """A head that says itself where it looks; others are explained by Grad-CAM. See :mod:`classification.explain`."""

    def attention_maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """N x in_channels x H x W and N class indices to N x H x W weights, 0 or more: where it looks for the class."""


class Loss(Protocol):
    """From logits and targets to one number; registered in ``MODELS``, a ``torch.nn.Module``.

    It may have an attribute ``reduction``: ``sum`` or ``mean``, whichever the number is over the batch. Without it, the
    number is taken for a mean. With the config key ``class_weights`` its constructor gets the argument of that name:
    C numbers.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """N x C logits and N x C targets in {1, 0, -1}, -1 for unknown, to a scalar."""


class LabelledPictures(Protocol):
    """A data set of pictures with labels; registered in ``DATASETS``, a ``torch.utils.data.Dataset``.

    The keys ``sampling``, ``class_weights`` and ``initial_bias`` ask it for its labels: by a method
    ``get_cat_ids(index)``, the numbers of the classes that a picture shows. With ``sampling`` the first number of a
    pair (epoch, index) is that of a visit: another one for each visit of a picture in each epoch.

    Its constructor takes ``pipeline``, and ``classes``, by which the validation data has the columns of the training
    data.

    Attributes:
        classes: names, in the order of the targets.
        metainfo: a dict with ``classes``, which MMEngine carries into checkpoints.
        image_folder: the folder that the pictures' names are relative to.
        annotation_file: the file of the labels, shown in reports.

    With a method ``image_paths()``, the paths of all images, it is told how many images splits share.
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
