"""The base class of TResNet: translation of the names of weights, frozen stages, and access to norms and stages."""

from collections.abc import Mapping
from itertools import chain
from typing import TypedDict

from torch import Tensor, nn

from tresnet_downstream.backbones import lean
from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.arguments import Variant
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.pretrained import PretrainedModule


class StageInfo(TypedDict):
    """A stage of a backbone.

    Attributes:
        name: name of the module that ends the stage.
        channels: channels of its feature map.
        stride: ratio of the sides of the image to those of the feature map.
    """

    name: str
    channels: int
    stride: int


class Backbone(PretrainedModule):
    """The base class of :class:`TResNet`. The subclass builds the stem and the stages.

    Attributes:
        variant: the sizes.
        out_indices: stages whose feature maps are returned, counted from 0.
        frozen_stages: see :class:`TResNet`.
        norm_eval: see :class:`TResNet`.
        stem: the first layers.
        feature_info: for each of the four stages a dict of ``name``, ``channels`` and ``stride``.
    """

    variant: Variant
    out_indices: tuple[int, ...]
    frozen_stages: int
    norm_eval: bool
    stem: nn.Module
    feature_info: list[StageInfo]

    @property
    def stages(self) -> list[nn.Sequential]:
        """The four stages, in order."""
        return [getattr(self, info["name"]) for info in self.feature_info]

    def norms(self) -> list[ActivatedBatchNorm]:
        """Every norm of the network."""
        return [module for module in self.modules() if isinstance(module, ActivatedBatchNorm)]

    def layer_numbers(self, unit: str) -> dict[str, int]:
        """From the name of each parameter to the number of its layer, in the order of execution; 0 is the stem.

        Args:
            unit: ``block`` counts each block as a layer, ``stage`` each stage.
        """
        layers = [self.stem, *(self.stages if unit == "stage" else chain.from_iterable(self.stages))]
        numbers = {id(p): number for number, layer in enumerate(layers) for p in layer.parameters()}
        return {name: numbers[id(parameter)] for name, parameter in self.named_parameters()}

    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a backbone, classifier or detector in any published style, renamed to this backbone's names."""
        translated = translate(state_dict)
        if translated is None:
            return dict(state_dict)
        unused = {name: state_dict[name] for name in translated.unused}
        return {name.removeprefix("backbone."): tensor for name, tensor in translated.state_dict.items()} | unused

    def plain_blocks(self) -> dict[str, str]:
        """From the name of each block that runs its plain modules in training to the reason.

        The other blocks run steps with the same results that save less for the backward pass; ``docs/architecture.md``
        has the rule. Reasons that concern a whole pass, such as ``torch.no_grad``, are not listed.

        Examples:
            >>> from tresnet_downstream.backbones import TResNet
            >>> TResNet(layers=(1, 1, 1, 1), width=0.25).plain_blocks()
            {}
            >>> network = TResNet(layers=(1, 1, 1, 1), width=0.25)
            >>> handle = network.layer3[0].conv3.register_forward_hook(lambda *_: None)
            >>> network.plain_blocks()
            {'layer3.0': 'conv3 has a forward hook'}
        """
        return lean.plain_blocks(self)

    def train(self, mode: bool = True) -> "Backbone":
        """Sets the mode. Frozen stages, and all norms if ``norm_eval`` is set, stay in evaluation mode."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for norm in self.norms():
                norm.eval()
        return self

    def freeze(self) -> None:
        """Sets the frozen stages to evaluation mode and their parameters to ``requires_grad=False``."""
        if self.frozen_stages < 0:
            return
        for module in chain([self.stem], self.stages[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a stage.

        ``convert_sync_batchnorm`` calls this method to replace each child by a converted module, which would lose the
        activations that the norms include. It is therefore refused. Adding a child again under its own name is allowed,
        since MMEngine does so when it looks for synchronised norms and there are none.

        Raises:
            UserError: if the name is taken by another module, or if the module contains a ``SyncBatchNorm``.
        """
        present = self._modules.get(name)
        is_same = module is present and not any("SyncBatchNorm" in type(part).__name__ for part in module.modules())
        if present is not None and not is_same:
            raise UserError(
                "TResNet's norms cannot be converted (sync_bn, convert_sync_batchnorm): build it with norm='sync'"
            )
        super().add_module(name, module)
