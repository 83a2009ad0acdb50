"""Checks, before a training or a scoring, that the parts of a detector fit together and fit the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.checkpoints import bare

# Side of the image that is passed through the detector, so a stride of 32 leaves some pixels.
_SIDE = 64
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Heads that do not predict classes of the data, but regions or stuff.
_OF_NO_CLASS = ("rpn_head", "semantic_head", "panoptic_head")


class _MisfitError(Exception):
    """A layer got another number of channels than it expects."""

    def __init__(self, layer: str, takes: int, gets: int) -> None:
        super().__init__(layer)
        self.layer, self.takes, self.gets = layer, takes, gets


def detector_of(model: nn.Module) -> nn.Module:
    """The detector without its wrappers for several processes or test-time augmentation."""
    inner = bare(model)
    detector: nn.Module = inner.module if isinstance(inner, BaseTTAModel) else inner
    return detector


def check_network(detector: nn.Module, config: ConfigDict) -> None:
    """Passes a small image through a detector, and raises an error with the config key of parts that do not fit.

    Other exceptions are ignored, because the detector may need other images. The states of the detector and of random
    generators are not changed.

    Args:
        detector: a detector of MMDetection with a backbone.
        config: its config, the key ``model``.

    Raises:
        UserError: if a layer gets another number of channels than it expects, the neck expects another number of
            feature maps than the backbone returns, or a head has anchors for another number of feature maps than it
            gets.
    """
    outputs: dict[str, object] = {}
    try:
        with _evaluating(detector), _watched(detector, outputs):
            _forward(detector)
            misfit_of_anchors = _of_anchors(detector, config, outputs)
    except _MisfitError as misfit:
        raise UserError(_of_channels(misfit, config, outputs)) from None
    except Exception:
        if text := _of_maps(config, outputs):
            raise UserError(text) from None
        return
    if misfit_of_anchors:
        raise UserError(misfit_of_anchors)


def _forward(detector: nn.Module) -> None:
    device = next(detector.parameters()).device
    size = (_SIDE, _SIDE)
    sample = DetDataSample(
        metainfo={
            "img_shape": size,
            "batch_input_shape": size,
            "pad_shape": size,
            "ori_shape": size,
            "scale_factor": (1.0, 1.0),
        }
    )
    detector(torch.zeros(1, 3, *size, device=device), [sample], mode="tensor")


@contextmanager
def _evaluating(detector: nn.Module) -> Iterator[None]:
    """A context in which the detector is in evaluation mode without gradients; on exit all modes are restored."""
    modes = {module: module.training for module in detector.modules()}
    devices = [device for device in {parameter.device for parameter in detector.parameters()} if device.type == "cuda"]
    detector.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _watched(detector: nn.Module, outputs: dict[str, object]) -> Iterator[None]:
    """A context in which layers raise if the channels of their input are wrong, and outputs of parts are stored."""
    handles = []
    for name, module in detector.named_modules():
        if (channels := _channels_expected(module)) is not None:
            handles.append(module.register_forward_pre_hook(_raises_at_misfit(name, *channels)))
        if name in ("backbone", "neck"):
            handles.append(module.register_forward_hook(_keeps(name, outputs)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _channels_expected(module: nn.Module) -> tuple[int, int] | None:
    """The number of channels that a layer expects, and their dimension; None if unknown."""
    if isinstance(module, _CONVOLUTIONS):
        return module.in_channels, 1
    if isinstance(module, nn.Linear):
        return module.in_features, -1
    if isinstance(module, SingleRoIExtractor):
        return module.out_channels, 1
    return None


def _raises_at_misfit(name: str, takes: int, dimension: int) -> Callable[[nn.Module, tuple[object, ...]], None]:
    def look(_: nn.Module, inputs: tuple[object, ...]) -> None:
        first = inputs[0] if inputs else None
        first = first[0] if isinstance(first, tuple | list) and first else first  # of several maps
        if isinstance(first, Tensor) and first.ndim > 1 and first.shape[dimension] != takes:
            raise _MisfitError(name, takes, first.shape[dimension])

    return look


def _keeps(name: str, outputs: dict[str, object]) -> Callable[[nn.Module, object, object], None]:
    def keep(_: nn.Module, __: object, output: object) -> None:
        outputs[name] = output

    return keep


def _maps(output: object) -> list[int]:
    """The channels of each feature map."""
    maps = output if isinstance(output, tuple | list) else (output,)
    return [each.shape[1] for each in maps if isinstance(each, Tensor) and each.ndim == 4]


def _of_channels(misfit: _MisfitError, config: ConfigDict, outputs: Mapping[str, object]) -> str:
    place, part = _part_of(misfit.layer, config)
    names = [name for name in ("in_channels", "out_channels") if name in part]
    named = f"model.{place}" + (f".{names[0]}={_plain(part[names[0]])}" if names else "")
    layer = f"its layer {misfit.layer} expects {misfit.takes:,} input channels and receives {misfit.gets:,}"
    return f"{named}: {layer}; {_given(place, config, outputs)}"


def _given(place: str, config: ConfigDict, outputs: Mapping[str, object]) -> str:
    """The text about the output of the part before ``place``, and what to do."""
    if place.startswith("roi_head.") and "roi_extractor" not in place:
        extractor = "mask_roi_extractor" if "mask" in place else "bbox_roi_extractor"
        features = config.get("roi_head", {}).get(extractor) or config.get("roi_head", {}).get("bbox_roi_extractor")
        channels = features.get("out_channels") if isinstance(features, Mapping) else None
        if channels is not None:
            return (
                f"model.roi_head.{extractor}.out_channels is {channels}: make in_channels match it, and check "
                "roi_feat_size"
            )
    source = "neck" if "neck" in outputs and not place.startswith("neck") else "backbone"
    channels = _maps(outputs.get(source))
    if not channels:
        return "make its in_channels match the preceding part of the model"
    if source == "backbone" and place.startswith("neck"):
        return f"the backbone returns {channels} channels: set in_channels to these, in the neck's order"
    return f"the {source} returns {_few(channels)}: make the two match"


def _of_maps(config: ConfigDict, outputs: Mapping[str, object]) -> str | None:
    """The message if the neck expects another number of feature maps than the backbone returns, otherwise None."""
    channels = _maps(outputs.get("backbone"))
    neck = config.get("neck")
    place = "neck"
    if isinstance(neck, list | tuple) and neck:
        neck, place = neck[0], "neck.0"
    in_channels = neck.get("in_channels") if isinstance(neck, Mapping) else None
    if "neck" in outputs or not channels or not isinstance(in_channels, list | tuple):
        return None
    if len(in_channels) == len(channels):
        return None
    return (
        f"model.{place}.in_channels={_plain(in_channels)}: lists {len(in_channels)} feature maps, and the backbone "
        f"returns {len(channels)}, of {channels} channels: set in_channels to these, or select others with "
        "model.backbone.out_indices"
    )


def _of_anchors(detector: nn.Module, config: ConfigDict, outputs: Mapping[str, object]) -> str | None:
    """The message if a head has anchors or points for another number of feature maps than it gets, otherwise None."""
    features = outputs.get("neck", outputs.get("backbone"))
    for name in ("bbox_head", "rpn_head"):
        head = getattr(detector, name, None)
        strides = getattr(getattr(head, "prior_generator", None), "strides", None)
        if head is None or strides is None:
            continue
        first = head(features)[0]
        if not isinstance(first, tuple | list) or len(first) == len(strides):
            continue
        place, part = _part_of(name, config)
        keys = [key for key in ("anchor_generator", "prior_generator", "strides") if key in part]
        key = f"model.{place}.{keys[0]}" if keys else f"model.{place}"
        return (
            f"{key}: has strides for {len(strides)} feature maps, and the head receives {len(_maps(features))}: make "
            "the number of strides and model.neck.num_outs equal"
        )
    return None


def classes_with_boxes(metainfo: Mapping[str, Sequence[str]] | None) -> tuple[str, ...]:
    """The classes of a data set's boxes, from its ``metainfo``; for panoptic data, only the thing classes.

    Examples:
        >>> classes_with_boxes({"classes": ("cat", "sky"), "thing_classes": ("cat",)})
        ('cat',)
    """
    known = metainfo or {}
    return tuple(known.get("thing_classes") or known.get("classes") or ())


def check_classes(detector: nn.Module, config: ConfigDict, classes: Sequence[str]) -> None:
    """Checks that every head predicts as many classes as the data has.

    Args:
        detector: a detector of MMDetection.
        config: its config, the key ``model``.
        classes: the classes of the data.

    Raises:
        UserError: if a head of boxes or masks has another number of classes.
    """
    few = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    for name, module in detector.named_modules():
        num_thing_classes = getattr(module, "num_things_classes", None)
        if type(num_thing_classes) is int and num_thing_classes != len(classes):
            place, _ = _part_of(name, config)
            raise UserError(
                f"model.{place}.num_things_classes is {num_thing_classes}, and the data has {len(classes)} thing "
                f"classes ({few}): write num_things_classes={len(classes)}, and as many weights in its loss's "
                "class_weight"
            )
        count, last = getattr(module, "num_classes", None), name.rpartition(".")[2]
        is_head = any(part in ("bbox_head", "mask_head") for part in name.split("."))
        if not is_head or last in _OF_NO_CLASS or type(count) is not int or count == len(classes):
            continue
        place, _ = _part_of(name, config)
        raise UserError(
            f"model.{place}.num_classes is {count}, and the data has {len(classes)} classes ({few}): write "
            f"num_classes={len(classes)}"
        )


def has_masks(detector: nn.Module) -> bool:
    """Whether a part of a detector predicts masks."""
    names = {name.rpartition(".")[2] for name, _ in detector.named_modules()}
    return bool(names & {"mask_head", "panoptic_head"})


def _part_of(name: str, config: ConfigDict) -> tuple[str, Mapping[str, object]]:
    """The path and value of the deepest part of the config that contains a module, such as ``roi_head.bbox_head.0``."""
    part: object = config
    path: list[str] = []
    for step in name.split("."):
        if isinstance(part, Mapping) and isinstance(part.get(step), Mapping | list | tuple):
            part = part[step]
        elif isinstance(part, list | tuple) and step.isdigit() and int(step) < len(part):
            part = part[int(step)]
        else:
            break
        path.append(step)
    return ".".join(path) or name.partition(".")[0], part if isinstance(part, Mapping) else {}


def _few(channels: list[int]) -> str:
    """The channels of feature maps as text; a single number if all are equal."""
    return f"{channels[0]} in each map" if len(set(channels)) == 1 else str(channels)


def _plain(value: object) -> str:
    return str(list(value)) if isinstance(value, list | tuple) else str(value)
