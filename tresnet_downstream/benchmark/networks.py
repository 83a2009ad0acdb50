"""The networks of the benchmark: functions that build them, and their published scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from tresnet_downstream.errors import UserError

NUM_CLASSES = 1000
TRESNET_RELEASE = "README of the TResNet release"
TIMM_WEIGHTS = "timm's files of the release's weights"
RESNET_RS_PAPER = "Bello et al., 2021, arXiv:2103.07579"


@dataclass(frozen=True)
class Published:
    """A published top-1 score on ImageNet.

    Attributes:
        percent: top-1 score with a single crop, in percent.
        source: where the score is published.
    """

    percent: float
    source: str


@dataclass(frozen=True)
class Network:
    """A network of the table `NETWORKS`.

    Attributes:
        build: function that returns a classifier with 1000 classes and random weights. The classifier maps images of
            shape N x 3 x H x W to N x 1000 logits.
        published: published scores by image size in pixels. The first size is the network's own size.
        ours: whether the network is this toolkit's and `deployment.fuse` accepts it.
        only_training: whether inference is not measured because it equals that of another network, as with
            checkpointing.
        family: name of the networks that a line joins in the plot; empty for no line.
    """

    build: Callable[[], nn.Module]
    published: Mapping[int, Published] = field(default_factory=dict)
    ours: bool = False
    only_training: bool = False
    family: str = ""


def tresnet(variant: str, **options: object) -> Callable[[], nn.Module]:
    """Returns a function that builds this toolkit's TResNet.

    Args:
        variant: variant of the backbone, such as ``m``.
        **options: further arguments of the backbone.
    """

    def build() -> nn.Module:
        from tresnet_downstream.classification import ImageClassifier

        return ImageClassifier(
            backbone={"type": "TResNet", "variant": variant, **options},
            head={"type": "LinearHead", "num_classes": NUM_CLASSES},
        )

    return build


def on_torchs_operators(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Returns a function that builds the same network with Triton's kernels off.

    A comparison of the two networks shows the effect of the kernels on a GPU.
    """

    def build_with_switch() -> nn.Module:
        from tresnet_downstream.backbones import use_triton

        network = build()
        forward: Callable[[Tensor], Tensor] = network.forward

        def switched(images: Tensor) -> Tensor:
            before = use_triton(False)
            try:
                return forward(images)
            finally:
                use_triton(before)

        network.forward = switched
        return network

    return build_with_switch


def timm_network(model: str, checkpointing: bool = False) -> Callable[[], nn.Module]:
    """Returns a function that builds a network of timm.

    The returned function raises a UserError if timm is not installed or has no such network.

    Args:
        model: timm's name of the network.
        checkpointing: whether to use timm's activation checkpointing.
    """

    def build() -> nn.Module:
        try:
            import timm
        except ImportError as error:
            raise UserError(f"{model} needs timm: pip install 'tresnet-downstream[timm]'") from error
        try:
            created = timm.create_model(model, pretrained=False, num_classes=NUM_CLASSES)
        except RuntimeError as error:
            raise UserError(f"timm {timm.__version__} has no network {model}: pip install --upgrade timm") from error
        if checkpointing:
            created.set_grad_checkpointing(True)
        network: nn.Module = created
        return network

    return build


def _release(percent: float, size: int = 224) -> dict[int, Published]:
    return {size: Published(percent, TRESNET_RELEASE)}


def _with_448(percent: float, at_448: float) -> dict[int, Published]:
    return {**_release(percent), 448: Published(at_448, TIMM_WEIGHTS)}


def _resnet_rs(percent: float, size: int) -> dict[int, Published]:
    return {size: Published(percent, RESNET_RS_PAPER)}


_M, _L, _XL = _with_448(80.8, 81.7), _with_448(81.5, 82.3), _with_448(82.0, 83.1)
NETWORKS: dict[str, Network] = {
    "tresnet_m": Network(tresnet("m"), _M, ours=True, family="TResNet, this toolkit"),
    "tresnet_l": Network(tresnet("l"), _L, ours=True, family="TResNet, this toolkit"),
    "tresnet_xl": Network(tresnet("xl"), _XL, ours=True, family="TResNet, this toolkit"),
    "tresnet_m_cp": Network(tresnet("m", with_cp=True), _M, ours=True, only_training=True),
    "tresnet_l_cp": Network(tresnet("l", with_cp=True), _L, ours=True, only_training=True),
    "tresnet_xl_cp": Network(tresnet("xl", with_cp=True), _XL, ours=True, only_training=True),
    "tresnet_m_cp_2": Network(tresnet("m", with_cp=2), _M, ours=True, only_training=True),
    "tresnet_m_torch_kernels": Network(on_torchs_operators(tresnet("m")), _M),
    "tresnet_l_torch_kernels": Network(on_torchs_operators(tresnet("l")), _L),
    "timm_tresnet_m": Network(timm_network("tresnet_m"), _M, family="TResNet, timm"),
    "timm_tresnet_l": Network(timm_network("tresnet_l"), _L, family="TResNet, timm"),
    "timm_tresnet_xl": Network(timm_network("tresnet_xl"), _XL, family="TResNet, timm"),
    "timm_tresnet_m_cp": Network(timm_network("tresnet_m", checkpointing=True), _M, only_training=True),
    "resnet50": Network(timm_network("resnet50"), _release(79.0)),
    "resnet50d": Network(timm_network("resnet50d"), _release(79.3)),
    "resnext50": Network(timm_network("resnext50_32x4d"), _release(79.4)),
    "seresnext50": Network(timm_network("seresnext50_32x4d"), _release(79.9)),
    "efficientnet_b1": Network(timm_network("efficientnet_b1"), _release(79.2, 240)),
    "mixnet_l": Network(timm_network("mixnet_l"), _release(79.0)),
    "resnetrs50": Network(timm_network("resnetrs50"), _resnet_rs(78.8, 160), family="ResNet-RS"),
    "resnetrs101": Network(timm_network("resnetrs101"), _resnet_rs(80.3, 160), family="ResNet-RS"),
    "resnetrs152": Network(timm_network("resnetrs152"), _resnet_rs(82.2, 224), family="ResNet-RS"),
    "resnetrs200": Network(timm_network("resnetrs200"), _resnet_rs(83.4, 256), family="ResNet-RS"),
}
SHORT_FORM = ("tresnet_m", "timm_tresnet_m", "resnet50")


def network_named(name: str) -> Network:
    """Returns the network with this name in `NETWORKS`.

    Raises:
        UserError: if there is no network with this name.
    """
    if name not in NETWORKS:
        raise UserError(f"unknown network {name!r}: choose from {', '.join(NETWORKS)}, or all")
    return NETWORKS[name]
