"""Any network of timm behind the interface of this toolkit's backbones."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.weights.pretrained import PretrainedModule

_STRIDES = (4, 8, 16, 32)


@MODELS.register_module()
class TimmNetwork(PretrainedModule):
    """A network of timm as a backbone, such as ``resnet50``, ``resnetrs50`` or ``vit_small_patch16_224``.

    Takes N x 3 x H x W pictures in RGB, [0, 1], as every backbone here; the mean and standard deviation that the
    network's weights were trained with are applied within. Gives the last feature map of stride ``4 * 2**i`` for
    each stage ``i`` in ``out_indices``; of a network with none of these strides, the last of each stride that it has. A
    vision transformer with patches of 16 has one stage.

    Args:
        model: timm's name of the network.
        out_indices: stages to return, counted from 0, or from the end by negative numbers.
        frozen_stages: -1 freezes nothing, 0 the stem, ``k`` the stem and the first ``k`` stages: no gradients,
            and evaluation mode.
        norm_eval: keeps every batch norm in evaluation mode.
        drop_path_rate: stochastic depth, where the network has it.
        with_cp: activation checkpointing, where the network has it; running statistics move twice, as timm does.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=...)`` takes a path or URL of a timm file.

    Attributes:
        feature_info: for each stage a dict of ``name``, ``channels`` and ``stride``.
        name: timm's name.

    Raises:
        UserError: if timm is not installed or has no such network, and for stages that the network does not have, and
            for pictures of a size that it does not take.
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
        with_cp: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.name, self.out_indices = model, tuple(out_indices)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        options = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        everything = _create(model)
        places = {info["reduction"]: place for place, info in enumerate(everything.feature_info.info)}
        # Vision transformers have one stride throughout, of 14 perhaps: then that is the one stage.
        strides = [stride for stride in _STRIDES if stride in places] or sorted(places)
        infos = [everything.feature_info.info[places[stride]] for stride in strides]
        self.feature_info: list[dict[str, Any]] = [
            {"name": info["module"], "channels": info["num_chs"], "stride": info["reduction"]} for info in infos
        ]
        self.out_indices = tuple(index + len(infos) if index < 0 else index for index in self.out_indices)
        if not self.out_indices or not set(self.out_indices) <= set(range(len(infos))):
            raise UserError(f"out_indices={tuple(out_indices)}: {model} has the stages 0 to {len(infos) - 1}")
        taken = sorted({places[infos[index]["reduction"]] for index in self.out_indices})
        self.network: Any = _create(model, out_indices=tuple(taken), **options)
        if with_cp:
            self.network.set_grad_checkpointing(True)
        config = self.network.default_cfg
        for key in ("mean", "std"):
            values = torch.tensor(config[key], dtype=torch.get_default_dtype(), device="cpu")[:, None, None]
            self.register_buffer(key, values, persistent=False)
        self._freeze()

    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm become this module's; a classifier's ``backbone.`` and a wrapper's ``module.`` go."""
        own = self.state_dict().keys()
        translated = {}
        for name, tensor in state_dict.items():
            bare = name.removeprefix("module.").removeprefix("backbone.")
            top, _, rest = bare.partition(".")
            index, _, deeper = rest.partition(".")
            # timm flattens a sequence of stages where it gives features: stages.0.x is stages_0.x there.
            candidates = (bare, f"network.{bare}", f"network.{top}_{index}.{deeper}")
            translated[next((each for each in candidates if each in own), name)] = tensor
        return translated

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices`` for N x 3 x H x W pictures in [0, 1]."""
        try:
            features = self.network((x - self.mean) / self.std)
        except (AssertionError, RuntimeError) as error:
            height, width = self.network.default_cfg["input_size"][1:]
            if tuple(x.shape[-2:]) == (height, width) or is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UserError(
                f"{self.name} takes no pictures of {x.shape[-2]} x {x.shape[-1]} ({reason}); it was made for {height} "
                f"x {width}: image_size={height}"
            ) from error
        if str(getattr(self.network, "output_fmt", "")).endswith("NHWC"):  # Swin's
            return tuple(feature.permute(0, 3, 1, 2) for feature in features)
        return tuple(features)

    def train(self, mode: bool = True) -> "TimmNetwork":
        """Switches modes; frozen stages, and with ``norm_eval`` all batch norms, stay in evaluation mode."""
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
        children = list(self.network.named_children())
        ends = [
            index
            for index, (name, _) in enumerate(children)
            if name in {info["name"].replace(".", "_") for info in self.feature_info}
        ]
        if self.frozen_stages > len(ends) or not ends:
            raise UserError(f"frozen_stages={self.frozen_stages}: {self.name} has {len(ends)} stages to freeze")
        count = ends[0] if self.frozen_stages == 0 else ends[self.frozen_stages - 1] + 1
        for _, module in children[:count]:
            module.eval()
            module.requires_grad_(False)


def _create(model: str, **options: Any) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError("TimmNetwork needs timm: pip install 'tresnet-downstream[timm]'") from error
    if ":" in model:
        # timm takes hf-hub:NAME and local-dir:PATH for a config that it fetches or reads.
        raise UserError(f"model={model!r}: give the name of a network that timm itself has")
    # Vision transformers take pictures of other sizes only if asked to; other networks do not know the argument.
    for sizes in ({"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(model, pretrained=False, features_only=True, **sizes, **options)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            if not sizes or (isinstance(error, RuntimeError) and "nknown model" in str(error)):
                reason = " ".join(str(error).split())[:120]
                raise UserError(f"model={model!r}: timm builds no such network for features ({reason})") from error
    raise AssertionError("unreachable")
