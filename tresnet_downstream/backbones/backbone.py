"""What a TResNet can do beside computing feature maps: weights of other names, frozen stages, its norms."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn

from tresnet_downstream.backbones import lean
from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.arguments import Variant
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.pretrained import PretrainedModule


class Backbone(PretrainedModule):
    """The base of :class:`TResNet`, which makes the stem and the stages.

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
    stem: Any
    feature_info: list[dict[str, Any]]

    @property
    def stages(self) -> list[Any]:
        """The four stages, in order."""
        return [getattr(self, info["name"]) for info in self.feature_info]

    def norms(self) -> list[ActivatedBatchNorm]:
        """Every norm of the network."""
        return [module for module in self.modules() if isinstance(module, ActivatedBatchNorm)]

    def layer_numbers(self, unit: str) -> dict[str, int]:
        """The layer of each parameter in the order of execution, by name: 0 for the stem.

        Args:
            unit: ``block``, a layer for each block of the stages, or ``stage``.
        """
        layers = [self.stem, *(self.stages if unit == "stage" else chain.from_iterable(self.stages))]
        numbers = {id(p): number for number, layer in enumerate(layers) for p in layer.parameters()}
        return {name: numbers[id(parameter)] for name, parameter in self.named_parameters()}

    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of any published style, of a detector or of a classifier, under this backbone's names."""
        translated = translate(state_dict)
        if translated is None:
            return dict(state_dict)
        others = {name: state_dict[name] for name in translated.unused}
        return {name.removeprefix("backbone."): tensor for name, tensor in translated.state_dict.items()} | others

    def plain_blocks(self) -> dict[str, str]:
        """The blocks that run their plain modules in training, with the reason; the others keep less memory.

        The results are the same in both forms. ``docs/architecture.md`` has the rule. What holds for a whole pass, such
        as that no gradient is recorded, is not asked here.

        Example:
            >>> from tresnet_downstream.backbones import TResNet
            >>> TResNet(layers=(1, 1, 1, 1), width=0.25).plain_blocks()
            {}
            >>> network = TResNet(layers=(1, 1, 1, 1), width=0.25)
            >>> handle = network.layer3[0].conv3.register_forward_hook(lambda *_: None)
            >>> network.plain_blocks()
            {'layer3.0': 'conv3 has a forward hook'}
        """
        return lean.plain_blocks(self)

    def train(self, mode: bool = True) -> Any:
        """Switches modes; frozen stages, and with ``norm_eval`` all norms, stay in evaluation mode."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for norm in self.norms():
                norm.eval()
        return self

    def freeze(self) -> None:
        """Puts the frozen stages into evaluation mode and takes their gradients away."""
        if self.frozen_stages < 0:
            return
        for module in chain([self.stem], self.stages[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a stage.

        Raises:
            UserError: for a name that is taken, unless by the same module as it was: ``convert_sync_batchnorm`` puts a
                converted module in place of each child so, and would drop the activations that the norms include.
                (MMEngine puts every child in its own place where it looks for synchronised norms and finds none.)
        """
        before = self._modules.get(name)
        is_same = module is before and not any("SyncBatchNorm" in type(part).__name__ for part in module.modules())
        if before is not None and not is_same:
            raise UserError(
                "TResNet's norms cannot be converted (sync_bn, convert_sync_batchnorm): build it with norm='sync'"
            )
        super().add_module(name, module)
