"""Explains predictions of a classifier by maps of the image regions that each class depends on.

A head with the method ``attention_maps`` (:class:`interfaces.AttendingHead`), such as ML-Decoder, returns its attention
as the map. All other heads are explained by Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391) of the package
grad-cam, on the last feature map of the backbone. This map is the only input of the head, so gradients are computed for
the head alone. The backbone runs as in prediction, fused or not, and no module is changed.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.images import ImageInput, pixels_of
from tresnet_downstream.interfaces import AttendingHead

ATTENTION, GRAD_CAM = "attention", "Grad-CAM"
# The largest deviation of a resized ramp from a straight line, as a share of the ramp's range.
_STRAIGHT = 0.02
# A ramp of 8 bits gives positions with an error of about half a percent of a side. Positions that are closer to the
# edge of the image are taken for the edge.
_EXACT = 0.006


class Region(NamedTuple):
    """The part of an image that is in the network's input, relative to its sides. Padding is below 0 or above 1."""

    left: float
    top: float
    right: float
    bottom: float


def explain(
    model: ImageClassifier,
    image: ImageInput,
    classes: Sequence[int],
    size: tuple[int, int] | None = None,
    pipeline: Callable[..., dict[str, np.ndarray]] | None = None,
) -> np.ndarray:
    """Computes a map of the image regions that each class depends on.

    With the model's test-time augmentation, the result is the mean of the maps of the image and of its mirror image.

    Args:
        model: a classifier from :func:`load_model`, fused or not, in evaluation mode. It is not changed.
        image: a file, Pillow image, or uint8 array of shape (height, width, 3).
        classes: K class indices.
        size: height and width of the maps, which cover the whole image; None for those of the image.
        pipeline: the result of :func:`build_pipeline`, which prepares the image; None for the model's pipeline.

    Returns:
        float32 of shape (K, height, width), 0 to 1. The maximum of each map is 1, unless Grad-CAM is 0 everywhere
        because no region increases the logit. Regions outside of the network's input, such as those that the pipeline
        crops, are 0.

    Raises:
        UserError: if the image cannot be read, a class does not exist, the pipeline does more than resize, crop and
            pad, or :func:`explanation_method` raises.

    Examples:
        >>> head = {"type": "MLDecoderHead", "num_classes": 3, "embed_dim": 16}
        >>> backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
        >>> model = ImageClassifier(backbone, head).eval()
        >>> model.pipeline = ({"type": "SquashResize", "size": 32},)
        >>> explain(model, np.zeros((40, 60, 3), np.uint8), [0, 2]).shape
        (2, 40, 60)
    """
    method = explanation_method(model)
    count = int(cast(int, model.head.num_classes))
    for label in classes:
        if not 0 <= label < count:
            raise UserError(f"class {label}: the model has the classes 0 to {count - 1}")
    if pipeline is None:
        if not model.pipeline:
            raise UserError("the model has no pipeline to prepare images: load it with load_model")
        pipeline = build_pipeline(model.pipeline)
    pixels = pixels_of(image)
    height, width = size or pixels.shape[:2]
    if not len(classes):
        return np.zeros((0, height, width), np.float32)
    region = seen_region(pipeline, pixels.shape[0], pixels.shape[1])
    prepared = pipeline(image=pixels)["image"]
    maps = _maps_of_features(model, prepared, classes)
    if model.tta:
        mirrored = _maps_of_features(model, np.ascontiguousarray(prepared[:, ::-1]), classes)
        maps = (maps + mirrored[:, :, ::-1]) / 2
    return _scaled(_laid(maps, region, height, width), lowest=method == GRAD_CAM)


def explanation_method(model: object) -> str:
    """The method by which a model is explained: ``attention`` or ``Grad-CAM``.

    Raises:
        UserError: if the model is exported, has no head or is in training mode, or if the package grad-cam is missing.
    """
    if not isinstance(model, ImageClassifier):
        raise UserError(
            "an exported model cannot be explained, since it does not return feature maps: give the weight file"
        )
    if not model.head.num_classes:
        raise UserError("the model has no head, so there are no classes to explain")
    if model.training:
        raise UserError("the model is in training mode: call model.eval() first")
    if isinstance(model.head, AttendingHead):
        return ATTENTION
    _grad_cam()
    return GRAD_CAM


def seen_region(pipeline: Callable[..., dict[str, np.ndarray]], height: int, width: int) -> Region:
    """The part of an image of this size that is in the result of a pipeline.

    It is measured, so that it is correct for any transforms: two ramps, from left to right and from top to bottom, are
    transformed, and the values of the results are the original positions of the pixels.

    Args:
        pipeline: the result of :func:`build_pipeline`.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        UserError: if the pipeline does more than resize, crop and pad.

    Examples:
        >>> pipeline = build_pipeline([{"type": "ResizeAndCrop", "size": 32, "fraction": 1.0}])
        >>> [round(share, 2) for share in seen_region(pipeline, 40, 80)]
        [0.25, 0.0, 0.75, 1.0]
    """
    white = pipeline(image=np.full((height, width, 3), 255, np.uint8))["image"]
    is_image = white.min(2) >= 254  # as opposed to padding
    rows, columns = np.flatnonzero(is_image.any(1)), np.flatnonzero(is_image.any(0))

    def ends(side: int, axis: int) -> tuple[float, float]:
        if side == 1:
            return 0.0, 1.0
        ramp = np.rint(255 * (np.arange(side) + 0.5) / side).astype(np.uint8)
        image = np.broadcast_to(ramp[None, :, None] if axis else ramp[:, None, None], (height, width, 3))
        result = pipeline(image=np.ascontiguousarray(image))["image"].mean(2)[np.ix_(rows, columns)] / 255
        return _ends_of_ramp(result if axis else result.T, (columns if axis else rows), is_image.shape[axis])

    left, right = ends(width, 1)
    top, bottom = ends(height, 0)
    return Region(left, top, right, bottom)


def _ends_of_ramp(ramp: np.ndarray, places: np.ndarray, length: int) -> tuple[float, float]:
    """The values of a transformed ramp, which was 0 to 1 over the image, extrapolated to both ends of a side.

    Args:
        ramp: (lines, P), increasing from left to right.
        places: (P,) positions of its pixels on the side.
        length: number of pixels of the side.
    """
    # Only the middle half is used, because resizing flattens the ends, and padding may repeat the image.
    middle = slice(len(places) // 4, len(places) - len(places) // 4)
    positions, values = (places[middle] + 0.5) / length, ramp[:, middle]
    if len(positions) >= 2:
        slope, start = np.polyfit(positions, values.mean(0), 1)
        if slope > 0.01 and np.abs(values - (slope * positions + start)).max() <= _STRAIGHT:
            return _edge_or(float(start), 0.0), _edge_or(float(start + slope), 1.0)
    raise UserError(
        "the maps cannot be aligned with the images, because the pipeline does more than resize, crop and pad; use a "
        "model whose pipeline does not"
    )


def _edge_or(place: float, edge: float) -> float:
    return edge if abs(place - edge) < _EXACT else place


def _laid(maps: np.ndarray, region: Region, height: int, width: int) -> np.ndarray:
    """Maps of the network's input, K x h x w, to maps of the image, K x height x width, which are 0 elsewhere."""
    down = _interpolation(height, maps.shape[1], region.top, region.bottom)
    across = _interpolation(width, maps.shape[2], region.left, region.right)
    result: np.ndarray = np.einsum("yh,khw,xw->kyx", down, maps, across, optimize=True)
    return result


def _interpolation(count: int, cells: int, start: float, end: float) -> np.ndarray:
    """Weights, count x cells, of linear interpolation between the centres of cells.

    Args:
        count: number of pixels of the side.
        cells: number of cells.
        start: beginning of the first cell, as a share of the side. Pixels before it have the weights 0.
        end: end of the last cell, as a share of the side. Pixels after it have the weights 0.
    """
    shares = ((np.arange(count) + 0.5) / count - start) / (end - start)
    places = np.clip(shares * cells - 0.5, 0, cells - 1)
    lower = np.minimum(places.astype(int), max(cells - 2, 0))
    weights = np.zeros((count, cells), np.float32)
    pixels = np.arange(count)
    weights[pixels, np.minimum(lower + 1, cells - 1)] = places - lower
    weights[pixels, lower] += 1 - (places - lower)
    weights[(shares < 0) | (shares > 1)] = 0
    return weights


def _scaled(maps: np.ndarray, lowest: bool) -> np.ndarray:
    """Divides each map by its maximum. With ``lowest``, its minimum is subtracted first, as in the package grad-cam."""
    if lowest:
        maps = maps - maps.min((1, 2), keepdims=True)
    result: np.ndarray = (maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-7)).clip(0, 1).astype(np.float32)
    return result


def _maps_of_features(model: ImageClassifier, image: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The map of a prepared image for each class, at the size of the last feature map."""
    with torch.inference_mode(False):
        with torch.no_grad():
            features = model.feature_map(model.inputs_of(image[None]))
        rows = features.expand(len(classes), -1, -1, -1)
        labels = torch.tensor(classes, device=features.device)
        if isinstance(model.head, AttendingHead):
            return _attention(model.head, rows, labels)
        return _grad_cam_maps(model.head, rows, classes)


def _attention(head: AttendingHead, features: Tensor, classes: Tensor) -> np.ndarray:
    with torch.no_grad():
        maps = head.attention_maps(features, classes)
    expected = (len(features), *features.shape[2:])
    if not isinstance(maps, Tensor) or tuple(maps.shape) != expected:
        shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise UserError(
            f"model.head: {type(head).__name__}.attention_maps returns {shape}; return a tensor of {expected}"
        )
    return maps.float().cpu().numpy()


def _grad_cam_maps(head: nn.Module, features: Tensor, classes: Sequence[int]) -> np.ndarray:
    kind, target = _grad_cam()
    network = _HeadAlone(head, features.dtype, features.device)
    # In float32 or float64, because the package converts tensors to numpy arrays, which do not have bfloat16.
    leaf = features.to(torch.promote_types(features.dtype, torch.float32)).clone().requires_grad_()
    with torch.enable_grad():
        # Not used as a context manager, which would print an IndexError and continue.
        result: np.ndarray = kind(network, [network.features])(leaf, [target(label) for label in classes])
        return result


class _HeadAlone(nn.Module):
    """A network of the head alone for Grad-CAM. Its target layer is the feature map, the input of the head.

    The head is not a submodule, and is called with detached tensors, so that its mode, its gradients and
    ``requires_grad`` of its parameters do not change.
    """

    def __init__(self, head: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.features = nn.Identity()
        # The package takes the device from the first parameter.
        self.place = nn.Parameter(torch.zeros(0, device=device))
        self._head, self._dtype = (head,), dtype

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W feature maps to N x num_classes logits."""
        (head,) = self._head
        tensors = itertools.chain(head.named_parameters(), head.named_buffers())
        detached = {name: tensor.detach() for name, tensor in tensors}
        logits = torch.func.functional_call(head, detached, (self.features(features).to(self._dtype),))
        if not logits.requires_grad:
            kind = type(head).__name__
            raise UserError(
                f"model.head: {kind} returns logits without gradients, which Grad-CAM needs; add a method "
                "`attention_maps`"
            )
        result: Tensor = logits
        return result


def _grad_cam() -> tuple[type, type]:
    """The classes of Grad-CAM and of its targets."""
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise UserError(
            f"Grad-CAM needs the package grad-cam: pip install 'tresnet-downstream[explain]' ({error})"
        ) from error
    return GradCAM, ClassifierOutputTarget
