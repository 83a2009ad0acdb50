"""Loads a network, ready for prediction, from a weight file."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.weight_file import WeightFile, not_finite
from tresnet_downstream.classification.weight_file_reading import read_weight_file
from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.weights.reading import has_boxes
from tresnet_downstream.wording import first_of


def load_model(
    path_or_name: str | Path,
    variant: str | None = None,
    slopes: Sequence[float] | None = None,
    weights: str | None = None,
    multi_label: bool | None = None,
    input_size: int | None = None,
    network: str | None = None,
) -> ImageClassifier:
    """Loads a classifier from a weight file, ready for prediction.

    The file may be from TResNet, ASL, ML-Decoder, ImageNet-21K or timm, or a checkpoint of this toolkit. From a
    detector's checkpoint, only the backbone is loaded, and a notice says so. A checkpoint of this toolkit describes its
    network; the module of a user's own head or backbone must be imported first.

    Args:
        path_or_name: the path of a file or shared folder, an ``https://`` URL, a name of the catalogue such as
            ``l_coco_asl_448``, or a repository ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``, see :func:`locate`.
        variant: the expected variant of the backbone; an error is raised if the shapes are those of another one.
        slopes: negative slopes of the leaky ReLU (stem, blocks). They cannot be inferred from tensor shapes; None takes
            those of the checkpoint or the catalogue, else 1e-2 and 1e-3. The V2-L that was trained on Stanford Cars
            has 1e-6, 1e-6.
        weights: ``raw`` or ``averaged``. None takes the weights with the better validation score if the checkpoint has
            one; otherwise the averaged weights if there are any.
        multi_label: whether probabilities are a sigmoid for each class, or a softmax over all. None takes the value of
            the file or the catalogue; if they have none, networks with 1000, 11221, 10450 or 196 classes have one label
            per image.
        input_size: height and width of the input in pixels; None for that of the file.
        network: name of the network in timm, such as ``tf_efficientnet_lite0``, if the file is of a network of timm
            other than TResNet. Images are then prepared as in timm.

    Returns:
        The classifier in evaluation mode: N x 3 x H x W in [0, 1] to N x C logits, or to pooled features if the file
        has no head. It has ``classes``, ``input_size``, ``variant``, ``multi_label``, ``pipeline`` and ``thresholds``.

    Raises:
        UserError: if the file cannot be read, has the weights of another network or variant, names a component that is
            not registered, or has values that are not finite.

    Examples:
        >>> from tresnet_downstream import load_model
        >>> backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
        >>> classifier = ImageClassifier(backbone, {"type": "LinearHead", "num_classes": 3})
        >>> torch.save(classifier.state_dict(), "classifier.pth")
        >>> model = load_model("classifier.pth", input_size=32)
        >>> model.classes, model.input_size, model(torch.rand(1, 3, 32, 32)).shape
        (('0', '1', '2'), 32, torch.Size([1, 3]))
    """
    file = read_weight_file(path_or_name, variant, slopes, weights, multi_label, input_size, network)
    if bad := not_finite(file.state_dict):
        raise UserError(f"{file.path}: has values that are not finite, in {first_of(bad)}; use another file")
    if has_boxes(file.unused):
        tell(f"note: {file.path}: is a detector; load_model loads its backbone only, and load_detector all of it")
    return assembled(file)


def assembled(file: WeightFile) -> ImageClassifier:
    """Builds the network of a weight file. The dict of weights is emptied, so that they are in memory once.

    Raises:
        UserError: if the type of a tensor is not that of the network.
    """
    # Built on the device "meta"; the tensors of the file become its parameters.
    classifier = file.layout()
    dtype = torch.get_default_dtype()
    state_dict = {}
    expected = classifier.state_dict()
    for name in list(file.state_dict):
        tensor = file.state_dict.pop(name)
        if name in expected and expected[name].is_floating_point() and not tensor.is_floating_point():
            raise UserError(f"{file.path}: {name} is of {tensor.dtype}, where the network has {expected[name].dtype}")
        if name in expected and not expected[name].is_floating_point():
            tensor = tensor.to(expected[name].dtype)  # counters, which some files store as floats
        elif tensor.is_floating_point():
            tensor = _laid_out(tensor.to(dtype))
        state_dict[name] = tensor
    classifier.load_state_dict(state_dict, assign=True)
    return classifier


def _laid_out(tensor: Tensor) -> Tensor:
    """The tensor with the strides that it has in training, since the rounding of kernels depends on strides.

    `contiguous` does not change the strides of a 1 x 1 filter, because the order of its values is the same.
    """
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    in_layout = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta", memory_format=layout)
    return tensor.contiguous(memory_format=layout).as_strided(tensor.shape, in_layout.stride())
