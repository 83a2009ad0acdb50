"""Interfaces of components that users can add.

Each interface is a :class:`typing.Protocol`, so a component need not inherit from it. A component is a class in a
user's Python file, registered by ``@MODELS.register_module()`` or another registry of
:mod:`tresnet_downstream.registry`. A config names it by ``type``. The file is imported by the option ``--import FILE``,
by ``custom_imports`` in a config, or in Python. ``docs/extending/`` has a complete example of each component.

Metrics are subclasses of MMEngine's ``BaseMetric`` in ``METRICS``. For each image of a batch, ``process`` gets a dict
from each set of weights (``raw``, ``averaged``) to the image's C probabilities.
:class:`classification.metrics.ProbabilityMetric` collects them. Transforms are Albumentations' transforms, or classes
with the same interface, in ``TRANSFORMS``. Optimisers and schedules are those of torch and MMEngine, in ``OPTIMIZERS``
and ``PARAM_SCHEDULERS``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class Backbone(Protocol):
    """A network that computes feature maps of images: a ``torch.nn.Module``, registered in ``MODELS``.

    Its constructor takes ``out_indices``, the stages to return; negative numbers count from the end. Classifiers use
    ``(-1,)``.

    Attributes:
        out_indices: the returned stages, counted from 0.
        feature_info: for each stage a dict with ``channels``, the number of channels of its feature map.
        name: name in messages and reports.

    For ``layer_decay`` it needs a method ``layer_numbers(unit)``, which returns the layer number of each parameter by
    its name, in the order of execution; ``unit`` is ``block`` or ``stage``.
    """

    out_indices: tuple[int, ...]
    feature_info: Sequence[dict[str, Any]]
    name: str

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """Computes a feature map, N x C x H' x W', for each of ``out_indices``, from N x 3 x H x W RGB in [0, 1]."""


class Head(Protocol):
    """Computes a logit for each class from the last feature map: a ``torch.nn.Module``, registered in ``MODELS``.

    Its constructor takes ``in_channels`` and ``num_classes``, and the arguments from the config. A head that is loaded
    from the files of another release also has an entry in :data:`weights.head_names.HEADS`, and a class method
    ``arguments_from(weights)``, which returns its arguments except ``in_channels`` from the head's tensors by name. A
    head that supports ``initial_bias`` has an attribute ``class_bias``, the parameter of shape (num_classes,) that is
    added to the logits.
    """

    num_classes: int

    def forward(self, features: Tensor) -> Tensor:
        """Computes N x num_classes logits from features of shape N x in_channels x H x W."""


@runtime_checkable
class AttendingHead(Protocol):
    """A head with its own attention maps. Other heads are explained by Grad-CAM, see :mod:`classification.explain`."""

    def attention_maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """Computes N x H x W weights, at least 0, from features N x in_channels x H x W and N class indices."""


class Loss(Protocol):
    """Computes a scalar loss from logits and targets: a ``torch.nn.Module``, registered in ``MODELS``.

    Its attribute ``reduction`` says how the loss is reduced over the batch, ``sum`` or ``mean``; without it, ``mean``
    is assumed. With the config key ``class_weights``, its constructor gets an argument of that name: C numbers.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes the loss from N x C logits and N x C targets in {1, 0, -1}, where -1 means unknown."""


class LabelledImages(Protocol):
    """A data set of images with labels: a ``torch.utils.data.Dataset``, registered in ``DATASETS``.

    For the keys ``sampling``, ``class_weights`` and ``initial_bias`` it needs a method ``get_cat_ids(index)``, which
    returns the indices of an image's classes. With ``sampling``, the first number of a pair (epoch, index) is the
    number of a visit, which differs for each visit of an image in each epoch.

    Its constructor takes ``pipeline`` and ``classes``. Validation data gets the classes of the training data, so its
    targets have the same columns.

    Attributes:
        classes: class names, in the order of the targets.
        metainfo: a dict with ``classes``, which MMEngine stores in checkpoints.
        image_folder: the folder to which image names are relative.
        annotation_file: the file of the labels, for reports.

    If it has a method ``image_paths()``, which returns the paths of all images, images that splits share are reported.
    """

    classes: tuple[str, ...]
    metainfo: dict[str, Any]
    image_folder: str
    annotation_file: str

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """The sample for ``(epoch, index)``.

        ``inputs``: uint8 of shape 3 x H x W; ``targets``: C values in {1, 0, -1}; ``image``: the image's name.
        """


@runtime_checkable
class NamesImages(Protocol):
    """A data set that provides the paths of its images, for the search for images that splits share."""

    def image_paths(self) -> Sequence[str]:
        """The paths of all images."""


@runtime_checkable
class LeavesOut(Protocol):
    """A data set that leaves images out.

    Attributes:
        left_out: the reason for each image that is left out, by image name.
    """

    left_out: Mapping[str, str]
