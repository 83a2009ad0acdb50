"""The stages of the reproduction: their trainings, and the trainings that are compared.

The values of config keys may contain placeholders: ``{tiny_imagenet}``, ``{voc2007}`` and ``{lite0}`` for the user's
data, and ``{out}`` for the folder of all results. ``{out}/STAGE/TRAINING/best.pth`` is the checkpoint of a training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PRETRAINED = "{out}/pretraining/tresnet/best.pth"


@dataclass(frozen=True)
class Training:
    """The arguments of one training by ``tresnet train``. Its best checkpoint is scored.

    Attributes:
        config: name of a packaged config, or path of a config file.
        options: values of config keys, as text.
    """

    config: str
    options: Mapping[str, str] = field(default_factory=dict)

    def with_options(self, **options: str) -> "Training":
        """Returns a copy with further options.

        Examples:
            >>> Training("voc07_tresnet_128", {"seed": "0"}).with_options(max_epochs="4").options
            {'seed': '0', 'max_epochs': '4'}
        """
        return Training(self.config, {**self.options, **options})


@dataclass(frozen=True)
class Stage:
    """Trainings that are run and compared together.

    Attributes:
        name: name of the stage, of its folder and of its record.
        summary: description of the experiment in one line.
        trainings: the trainings, by name.
        comparisons: pairs of a reference and the trainings to compare with it. ``STAGE/TRAINING`` is a training of an
            earlier stage.
        score: key, in the report's ``scores.json``, of the score that tables show.
        title: title of that score.
        after: names of the stages that must be finished first.
    """

    name: str
    summary: str
    trainings: Mapping[str, Training]
    comparisons: tuple[tuple[str, tuple[str, ...]], ...]
    score: str
    title: str
    after: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the required data, among ``tiny_imagenet``, ``voc2007`` and ``lite0``.

        Examples:
            >>> STAGES["detection"].needs
            ('voc2007',)
        """
        values = " ".join(value for training in self.trainings.values() for value in training.options.values())
        return tuple(name for name in ("tiny_imagenet", "voc2007", "lite0") if f"{{{name}}}" in values)


def _tiny(config: str, epochs: int, **options: str) -> Training:
    data = {"data_root": "{tiny_imagenet}", "max_epochs": str(epochs), "num_workers": "1"}
    return Training(config, {**data, **options})


def _voc(config: str, seed: int, **options: str) -> Training:
    return Training(config, {"data_root": "{voc2007}", "num_workers": "1", "seed": str(seed), **options})


def _detector(**options: str) -> Training:
    data = {"data_root": "{voc2007}/", "train_dataloader.num_workers": "1", "val_dataloader.num_workers": "1"}
    return Training("voc07_retinanet_tresnet_small", {**data, **options})


_LOSSES = {
    "cross_entropy": {"model.loss": "dict(_delete_=True, type='BinaryCrossEntropy')"},
    "focal": {"model.loss": "dict(_delete_=True, type='FocalLoss')"},
    "asymmetric": {},
    "ml_decoder": {"model.head": "dict(_delete_=True, type='MLDecoderHead', num_classes=None)"},
}
_SEEDS = (0, 1)

PRETRAINING = Stage(
    "pretraining",
    "TResNet of half width beside a ResNet-18 of half width, Tiny ImageNet at 64, 15 epochs",
    {
        "tresnet": _tiny("tiny_imagenet_tresnet_64", 15),
        "resnet": _tiny("tiny_imagenet_resnet18_64", 15),
    },
    (("resnet", ("tresnet",)),),
    "top1",
    "top-1",
)
ABLATION = Stage(
    "ablation",
    "TResNet of half width whole, without squeeze-and-excite, without anti-alias filters; Tiny ImageNet, 5 epochs",
    {
        "whole": _tiny("tiny_imagenet_tresnet_64", 5),
        "without_squeeze_excite": _tiny("tiny_imagenet_ablation_64", 5),
        "without_blur": _tiny("tiny_imagenet_ablation_64", 5, **{"model.backbone.type": "TResNetWithoutBlur"}),
    },
    (("whole", ("without_squeeze_excite", "without_blur")),),
    "top1",
    "top-1",
)
MULTILABEL = Stage(
    "multilabel",
    "PASCAL VOC 2007 at 128, 8 epochs, two seeds: losses, ML-Decoder, and random weights",
    {
        **{
            f"{name}_{seed}": _voc("voc07_tresnet_128", seed, pretrained=PRETRAINED, **options)
            for name, options in _LOSSES.items()
            for seed in _SEEDS
        },
        **{f"random_{seed}": _voc("voc07_tresnet_128", seed) for seed in _SEEDS},
    },
    tuple(
        (f"asymmetric_{seed}", tuple(f"{name}_{seed}" for name in (*_LOSSES, "random") if name != "asymmetric"))
        for seed in _SEEDS
    ),
    "mAP",
    "mAP",
    after=("pretraining",),
)
LARGER_INPUT = Stage(
    "larger_input",
    "The pretrained TResNet after one more epoch on Tiny ImageNet, at 64 and at 96",
    {
        f"at_{side}": _tiny("tiny_imagenet_tresnet_64", 1, load_from=PRETRAINED, image_size=str(side), max_lr="0.01")
        for side in (64, 96)
    },
    (("at_64", ("at_96",)), ("pretraining/tresnet", ("at_64", "at_96"))),
    "top1",
    "top-1",
    after=("pretraining",),
)
DETECTION = Stage(
    "detection",
    "A small RetinaNet on PASCAL VOC 2007 at 256, 4 epochs, from the pretrained and from random weights",
    {
        "pretrained": _detector(**{"model.backbone.init_cfg.checkpoint": PRETRAINED}),
        "random": _detector(**{"model.backbone.init_cfg": "None"}),
    },
    (("random", ("pretrained",)),),
    "AP",
    "AP",
    after=("pretraining",),
)
IMAGENET_WEIGHTS = Stage(
    "imagenet_weights",
    "EfficientNet-Lite0 on PASCAL VOC 2007 at 224, 6 epochs, from ImageNet and from random weights",
    {
        "imagenet": _voc("voc07_efficientnet_lite0_224", 0, pretrained="{lite0}", max_epochs="6", amp="bfloat16"),
        "random": _voc("voc07_efficientnet_lite0_224", 0, max_epochs="6", amp="bfloat16"),
    },
    (("random", ("imagenet",)),),
    "mAP",
    "mAP",
)

STAGES = {stage.name: stage for stage in (PRETRAINING, ABLATION, MULTILABEL, LARGER_INPUT, DETECTION, IMAGENET_WEIGHTS)}
