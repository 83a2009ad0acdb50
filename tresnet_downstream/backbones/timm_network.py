"""Any network of timm behind the interface of this toolkit's backbones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tresnet_downstream.backbones.backbone import StageInfo
from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.weights.pretrained import PretrainedModule

_STRIDES = (4, 8, 16, 32)


class _FeatureMap(TypedDict):
    """A feature map of a network, as timm describes it.

    Attributes:
        module: name of the module that computes it.
        num_chs: number of channels.
        reduction: stride.
        index: number among all feature maps of the network.
    """

    module: str
    num_chs: int
    reduction: int
    index: int


class _Network(Protocol):
    """What this module uses of a network of timm.

    Attributes:
        num_features: number of channels after the final layers.
        feature_info: the feature maps, in order; in some networks, an object that has them as ``info``.
        default_cfg: settings of the pretrained weights, such as ``mean``, ``std`` and ``input_size``.
    """

    num_features: int
    feature_info: Sequence[_FeatureMap]
    default_cfg: Mapping[str, Sequence[float]]

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All modules with their names."""

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int], norm: bool, output_fmt: str
    ) -> tuple[Tensor, list[Tensor]]:
        """The output of the final layers, and the feature maps of the given numbers."""

    def prune_intermediate_layers(self, indices: Sequence[int], prune_norm: bool, prune_head: bool) -> object:
        """Removes layers after the last of these feature maps."""

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Turns activation checkpointing on or off."""


@MODELS.register_module()
class TimmNetwork(PretrainedModule):
    """A network of timm as a backbone, such as ``resnet50``, ``resnetrs50`` or ``vit_small_patch16_224``.

    The input is N x 3 x H x W images in RGB, [0, 1], as for every backbone of this package. The module normalises them
    by the mean and standard deviation that the network's weights were trained with. The output has, for each stage
    ``i`` in ``out_indices``, the last feature map of stride ``4 * 2**i``. If the network has none of these strides, its
    stages are the strides that it has: a vision transformer with patches of 16 has one stage.

    Some networks have layers between the last stage and the classifier, such as the convolution of an EfficientNet to
    1,280 channels. ``final_layers`` says whether they are applied to the last feature map.

    Args:
        model: name of the network in timm.
        out_indices: stages to return, counted from 0, or from the end by negative numbers.
        frozen_stages: -1 freezes nothing, 0 the stem, ``k`` the stem and the first ``k`` stages. Frozen parts get no
            gradients and stay in evaluation mode.
        norm_eval: keeps every batch norm in evaluation mode.
        drop_path_rate: rate of stochastic depth, for networks that have it.
        final_layers: whether the last stage includes the layers between it and the network's classifier. None includes
            them if ``out_indices`` is the last stage alone, as for classification.
        with_cp: activation checkpointing, for networks that have it. As in timm, running statistics are then updated
            twice in each step.
        options: further arguments of timm's function for this network, such as ``dict(channels=(32, 64, 128, 256))``
            for a ``resnet18`` of half width.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=...)`` takes the path or URL of a timm file.

    Attributes:
        feature_info: for each stage a dict of ``name``, ``channels`` and ``stride``.
        name: name of the network in timm.

    Raises:
        UserError: if timm is not installed or has no such network, for stages that the network does not have, and for
            images of a size that it cannot process.

    Examples:
        >>> network = TimmNetwork("resnet10t", out_indices=(1, -1)).eval()
        >>> [tuple(features.shape) for features in network(torch.rand(1, 3, 32, 32))]
        [(1, 128, 4, 4), (1, 512, 1, 1)]
    """

    mean: Tensor
    std: Tensor
    has_in_place_norms = False

    def __init__(
        self,
        model: str,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        final_layers: bool | None = None,
        with_cp: bool = False,
        options: Mapping[str, object] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.name, self.out_indices = model, tuple(out_indices)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        stochastic_depth = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        self.network = _create(model, **{**stochastic_depth, **(options or {})})
        infos = _stages(self.network)
        self.out_indices = tuple(index + len(infos) if index < 0 else index for index in self.out_indices)
        if not self.out_indices or not set(self.out_indices) <= set(range(len(infos))):
            raise UserError(f"out_indices={tuple(out_indices)}: {model} has the stages 0 to {len(infos) - 1}")
        last = len(infos) - 1
        with_last = self.out_indices == (last,) if final_layers is None else final_layers and last in self.out_indices
        self._with_norm = with_last
        # If the final layers are only a norm, timm applies it to the feature map, and the channels stay the same.
        self._takes_final = with_last and self.network.num_features != infos[last]["num_chs"]
        if self._takes_final:
            infos[last]["num_chs"] = self.network.num_features
        self._places = sorted({infos[index]["index"] for index in self.out_indices})
        if not with_last:
            self.network.prune_intermediate_layers(self._places, prune_norm=True, prune_head=True)
        self.feature_info: list[StageInfo] = [
            {"name": info["module"], "channels": info["num_chs"], "stride": info["reduction"]} for info in infos
        ]
        if with_cp:
            self.network.set_grad_checkpointing(True)
        config = self.network.default_cfg
        for key in ("mean", "std"):
            values = torch.tensor(config[key], dtype=torch.get_default_dtype(), device="cpu")[:, None, None]
            self.register_buffer(key, values, persistent=False)
        self._freeze()

    def layer_numbers(self, unit: str) -> dict[str, int]:
        """From the name of each parameter to the number of its layer, in the order of execution, as timm groups them.

        Args:
            unit: ``block`` counts each block as a layer, ``stage`` each stage; the same for vision transformers.

        Raises:
            UserError: if timm does not define the order of the network's layers.
        """
        from timm.models import group_parameters

        if not hasattr(self.network, "group_matcher"):
            raise UserError(f"layer_decay: timm does not define the order of the layers of {self.name}; use lr_factors")
        numbers = group_parameters(self.network, self.network.group_matcher(coarse=unit == "stage"), reverse=True)
        return {f"network.{name}": number for name, number in numbers.items()}

    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Renames timm's weights to this module's names, without the prefixes ``module.`` and ``backbone.``."""
        own = self.state_dict().keys()
        translated = {}
        for name, tensor in state_dict.items():
            bare = name.removeprefix("module.").removeprefix("backbone.")
            translated[next((each for each in (bare, f"network.{bare}") if each in own), name)] = tensor
        return translated

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices`` for N x 3 x H x W images in [0, 1]."""
        try:
            final, features = self.network.forward_intermediates(
                (x - self.mean) / self.std, indices=self._places, norm=self._with_norm, output_fmt="NCHW"
            )
        except (AssertionError, RuntimeError) as error:
            height, width = self.network.default_cfg["input_size"][1:]
            if tuple(x.shape[-2:]) == (height, width) or is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UserError(
                f"{self.name} cannot process images of {x.shape[-2]} x {x.shape[-1]} ({reason}); its own size is "
                f"{height} x {width}: image_size={height}"
            ) from error
        return (*features[:-1], final) if self._takes_final else tuple(features)

    def train(self, mode: bool = True) -> "TimmNetwork":
        """Sets the mode. Frozen stages, and all batch norms if ``norm_eval`` is set, stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        modules = list(self.network.named_modules())
        stages = [info["name"] for info in self.feature_info]
        if self.frozen_stages > len(stages) or len(stages) == 1:
            count = 0 if len(stages) == 1 else len(stages)
            raise UserError(f"frozen_stages={self.frozen_stages}: {self.name} has {count} stages to freeze")
        stage = stages[max(self.frozen_stages - 1, 0)]
        within = [place for place, (name, _) in enumerate(modules) if f"{name}.".startswith(f"{stage}.")]
        end = within[0] if self.frozen_stages == 0 else within[-1] + 1
        first_trainable = modules[end][0] if end < len(modules) else ""
        for name, module in modules[:end]:
            if not name or f"{first_trainable}.".startswith(f"{name}."):
                continue  # contains modules that are trained
            module.eval()
            module.requires_grad_(False)


def _stages(network: _Network) -> list[_FeatureMap]:
    """Timm's description of the last feature map of each stride, with its ``index`` among all feature maps."""
    infos: Sequence[_FeatureMap] = getattr(network.feature_info, "info", network.feature_info)
    all_maps: list[_FeatureMap] = [{**info, "index": index} for index, info in enumerate(infos)]
    by_stride = {info["reduction"]: info for info in all_maps}
    # All blocks of a vision transformer have the same stride, which need not be among _STRIDES. It is the one stage.
    strides = [stride for stride in _STRIDES if stride in by_stride] or sorted(by_stride)
    return [by_stride[stride] for stride in strides]


def _create(model: str, **options: object) -> _Network:
    try:
        import timm
    except ImportError as error:
        raise UserError("TimmNetwork needs timm: pip install 'tresnet-downstream[timm]'") from error
    if ":" in model:
        # timm would download or read the configs named by hf-hub:NAME and local-dir:PATH.
        raise UserError(f"model={model!r}: give the name of a network of timm")
    # Vision transformers need `dynamic_img_size` to accept other image sizes; other networks do not have the argument.
    for sizes in ({"dynamic_img_size": True}, {}):
        try:
            network: _Network = timm.create_model(model, pretrained=False, num_classes=0, **sizes, **options)
            network.forward_intermediates  # noqa: B018 - a network without this method cannot return feature maps
            return network
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            if not sizes or (isinstance(error, RuntimeError) and "nknown model" in str(error)):
                reason = " ".join(str(error).split())[:120]
                raise UserError(f"model={model!r}: timm cannot build a backbone of this name ({reason})") from error
    raise AssertionError("the last iteration returns or raises")
