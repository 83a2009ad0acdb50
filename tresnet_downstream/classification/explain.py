"""Where a classifier looks: a map over the picture for each class that is asked for.

A head with the method ``attention_maps`` (:class:`interfaces.AttendingHead`), such as ML-Decoder, says so itself. Any
other head is explained by Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391) of the package grad-cam, on the
backbone's last feature map. Since a classifier's head sees that map alone, the gradients go through the head and no
further: the backbone runs as it does in prediction, fused or not, and no module is changed.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.interfaces import AttendingHead
from tresnet_downstream.pictures import Picture, pixels_of

ATTENTION, GRAD_CAM = "attention", "Grad-CAM"
# How far the pipeline's picture of a ramp may be from a straight line, as a share of the ramp.
_STRAIGHT = 0.02
# Of 8 bits, a ramp tells places to about half a percent of a side: what is so near to the picture's edge is the edge.
_EXACT = 0.006


class Region(NamedTuple):
    """The part of a picture that a network sees, in shares of its sides; beyond 0 and 1 where it is padded."""

    left: float
    top: float
    right: float
    bottom: float


def explain(
    model: ImageClassifier,
    picture: Picture,
    classes: Sequence[int],
    size: tuple[int, int] | None = None,
    pipeline: Callable[..., dict[str, Any]] | None = None,
) -> np.ndarray:
    """Maps of where the network looks for each of these classes.

    Args:
        model: from :func:`load_model`, fused or not, in evaluation mode; stays as it is.
        picture: a file, Pillow image, or uint8 array of shape (height, width, 3).
        classes: numbers of K classes.
        size: height and width of the maps, which lie over the whole picture; None takes the picture's.
        pipeline: from :func:`build_pipeline`, which prepares the picture; None takes the model's.

    Returns:
        float32 of shape (K, height, width), 0 to 1. The greatest value of each is 1, unless nothing speaks for the
        class by Grad-CAM, which gives 0 everywhere. What the network does not see, as where its pictures are cropped,
        is 0.

    Raises:
        UserError: for a picture that cannot be read, a class that the model does not have, a pipeline that does more
            than resize, crop and pad, and what :func:`explanation_method` raises.
    """
    method = explanation_method(model)
    count = int(cast(int, model.head.num_classes))
    for label in classes:
        if not 0 <= label < count:
            raise UserError(f"class {label}: the model has the classes 0 to {count - 1}")
    if pipeline is None:
        if not model.pipeline:
            raise UserError("the model does not say how pictures are prepared: load it with load_model")
        pipeline = build_pipeline(model.pipeline)
    pixels = pixels_of(picture)
    height, width = size or pixels.shape[:2]
    if not len(classes):
        return np.zeros((0, height, width), np.float32)
    region = seen_region(pipeline, pixels.shape[0], pixels.shape[1])
    maps = _maps_of_features(model, pipeline(image=pixels)["image"], classes)
    return _scaled(_laid(maps, region, height, width), lowest=method == GRAD_CAM)


def explanation_method(model: Any) -> str:
    """How a model is explained: ``attention`` or ``Grad-CAM``.

    Raises:
        UserError: for an exported model, one without a head or in training mode, or if the package grad-cam is missing.
    """
    if not isinstance(model, ImageClassifier):
        raise UserError("an exported model cannot be explained, since it gives no feature maps: give the weight file")
    if not model.head.num_classes:
        raise UserError("the model has no head, so there are no classes to explain")
    if model.training:
        raise UserError("the model is in training mode: call model.eval() first")
    if isinstance(model.head, AttendingHead):
        return ATTENTION
    _grad_cam()
    return GRAD_CAM


def seen_region(pipeline: Callable[..., dict[str, Any]], height: int, width: int) -> Region:
    """The part of a picture of this size that a pipeline keeps.

    Measured, so that it holds for any transforms: ramps from left to right and from top to bottom go through the
    pipeline, and what comes out says where each pixel came from.

    Raises:
        UserError: if the pipeline does more than resize, crop and pad.
    """
    white = pipeline(image=np.full((height, width, 3), 255, np.uint8))["image"]
    kept = white.min(2) >= 254  # not what is padded
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))

    def ends(side: int, axis: int) -> tuple[float, float]:
        if side == 1:
            return 0.0, 1.0
        ramp = np.rint(255 * (np.arange(side) + 0.5) / side).astype(np.uint8)
        picture = np.broadcast_to(ramp[None, :, None] if axis else ramp[:, None, None], (height, width, 3))
        result = pipeline(image=np.ascontiguousarray(picture))["image"].mean(2)[np.ix_(rows, columns)] / 255
        return _ends_of_ramp(result if axis else result.T, (columns if axis else rows), kept.shape[axis])

    left, right = ends(width, 1)
    top, bottom = ends(height, 0)
    return Region(left, top, right, bottom)


def _ends_of_ramp(ramp: np.ndarray, places: np.ndarray, length: int) -> tuple[float, float]:
    """The values of a ramp, from 0 to 1 over a picture, at both ends of a side of what a pipeline made of it.

    Args:
        ramp: (lines, P), rising from left to right.
        places: (P,) positions of its pixels on that side.
        length: pixels of that side.
    """
    # Resizing flattens the ends, and a padding may repeat the picture: the middle half is the ramp alone.
    middle = slice(len(places) // 4, len(places) - len(places) // 4)
    positions, values = (places[middle] + 0.5) / length, ramp[:, middle]
    if len(positions) >= 2:
        slope, start = np.polyfit(positions, values.mean(0), 1)
        if slope > 0.01 and np.abs(values - (slope * positions + start)).max() <= _STRAIGHT:
            return _edge_or(float(start), 0.0), _edge_or(float(start + slope), 1.0)
    raise UserError(
        "the maps cannot be laid over the pictures: the pipeline does more than resize, crop and pad; explain a model "
        "whose pipeline does not"
    )


def _edge_or(place: float, edge: float) -> float:
    return edge if abs(place - edge) < _EXACT else place


def _laid(maps: np.ndarray, region: Region, height: int, width: int) -> np.ndarray:
    """Maps of what the network sees, K x h x w, over the whole picture, K x height x width; 0 where it sees nothing."""
    down = _interpolation(height, maps.shape[1], region.top, region.bottom)
    across = _interpolation(width, maps.shape[2], region.left, region.right)
    return np.einsum("yh,khw,xw->kyx", down, maps, across, optimize=True)


def _interpolation(count: int, cells: int, start: float, end: float) -> np.ndarray:
    """Weights, count x cells, of linear interpolation between the centres of cells that lie from ``start`` to ``end``.

    Both are shares of the side that the ``count`` pixels lie on; pixels before and after have no weights.
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
    """Each map divided by its maximum; with ``lowest``, as Grad-CAM's package does, its minimum taken away first."""
    if lowest:
        maps = maps - maps.min((1, 2), keepdims=True)
    return (maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-7)).clip(0, 1).astype(np.float32)


def _maps_of_features(model: ImageClassifier, image: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The maps of a prepared picture, one for each class, at the size of the last feature map."""
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
        raise UserError(f"model.head: {type(head).__name__}.attention_maps gives {shape}; give a tensor of {expected}")
    return maps.float().cpu().numpy()


def _grad_cam_maps(head: nn.Module, features: Tensor, classes: Sequence[int]) -> np.ndarray:
    kind, target = _grad_cam()
    network = _HeadAlone(head, features.dtype, features.device)
    # A leaf in float32 at least: the package turns what it keeps into numpy's arrays, which have no bfloat16.
    leaf = features.to(torch.promote_types(features.dtype, torch.float32)).clone().requires_grad_()
    with torch.enable_grad():
        # Not as a context manager, which would print an IndexError and go on.
        return kind(network, [network.features])(leaf, [target(label) for label in classes])


class _HeadAlone(nn.Module):
    """A head as the network that Grad-CAM is asked about, with the feature map as the layer that it looks at.

    The head is no submodule and is computed on detached copies of its tensors, so that nothing can change its mode,
    its gradients or what is to be trained of it.
    """

    def __init__(self, head: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.features = nn.Identity()
        # By its first parameter the package finds the device.
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
                f"model.head: {kind} gives logits without gradients, which Grad-CAM needs; give it a method "
                "`attention_maps`"
            )
        return logits


def _grad_cam() -> tuple[Any, Any]:
    """The class of Grad-CAM, and that of its targets."""
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise UserError(
            f"Grad-CAM needs the package grad-cam: pip install 'tresnet-downstream[explain]' ({error})"
        ) from error
    return GradCAM, ClassifierOutputTarget
