"""The claims of the papers and releases, with their sources, small experiments, and commands of full experiments."""

from dataclasses import dataclass

PAPER = "[TResNet](https://arxiv.org/abs/2003.13630)"
RELEASE = "[TResNet release](https://github.com/Alibaba-MIIL/TResNet)"
ASL = "[ASL](https://arxiv.org/abs/2009.14119)"
ML_DECODER = "[ML-Decoder](https://arxiv.org/abs/2111.12933)"


@dataclass(frozen=True)
class InSmall:
    """A small experiment for a claim: pairs of trainings, one for each seed, whose scores are compared.

    Attributes:
        stage: name of the stage with the trainings.
        pairs: for each seed, the training that scores higher according to the claim, and the training to compare with.
        higher: description of the first training of a pair, for the table.
        lower: description of the second training of a pair.
    """

    stage: str
    pairs: tuple[tuple[str, str], ...]
    higher: str
    lower: str


@dataclass(frozen=True)
class Claim:
    """A published claim.

    Attributes:
        text: the claim.
        published: the published value; empty if none is quoted.
        source: link to the paper or release.
        in_full: the command that repeats the published experiment.
        in_small: the small experiment; None if there is none.
        elsewhere: description of another measurement, with a link to its page; empty if there is none.
    """

    text: str
    published: str
    source: str
    in_full: str
    in_small: InSmall | None = None
    elsewhere: str = ""


_SEEDS = (0, 1)


def _seeds(higher: str, lower: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{higher}_{seed}", f"{lower}_{seed}") for seed in _SEEDS)


CLAIMS = (
    Claim("ImageNet top-1, M, L and XL at 224", "80.8, 81.5, 82.0", PAPER, "`tresnet train imagenet_tresnet_m_224`"),
    Claim(
        "more accurate than a ResNet of equal speed",
        "80.8 (M, ImageNet top-1) at about the GPU speed of ResNet-50",
        PAPER,
        "`tresnet train imagenet_tresnet_m_224`",
        InSmall("pretraining", (("tresnet", "resnet"),), "TResNet", "ResNet-18 (both of half width)"),
    ),
    Claim(
        "squeeze-and-excite raises accuracy",
        "",
        PAPER,
        "`tresnet train imagenet_tresnet_m_224`",
        InSmall("ablation", (("whole", "without_squeeze_excite"),), "with squeeze-and-excite", "without"),
    ),
    Claim(
        "anti-alias downsampling raises accuracy",
        "",
        PAPER,
        "`tresnet train imagenet_tresnet_m_224`",
        InSmall("ablation", (("whole", "without_blur"),), "with anti-alias filters", "without"),
    ),
    Claim("COCO 2014 mAP, ASL, M at 224", "81.8", ASL, "`tresnet train coco_tresnet_m_224`"),
    Claim("COCO 2014 mAP, ASL, L at 448", "86.6", ASL, "`tresnet train coco_tresnet_l_448`"),
    Claim("COCO 2014 mAP, ASL, XL at 640", "88.4", ASL, "`tresnet train coco_tresnet_xl_640`"),
    Claim(
        "COCO 2014 mAP, ML-Decoder, V2-L at 448", "90.1", ML_DECODER, "`tresnet train coco_tresnet_v2_l_448_ml_decoder`"
    ),
    Claim(
        "COCO 2014 mAP, ML-Decoder, XL at 640", "91.4", ML_DECODER, "`tresnet weights verify v2_xl_coco_ml_decoder_640`"
    ),
    Claim(
        "the asymmetric loss is better than cross-entropy",
        "",
        ASL,
        "`tresnet train coco_tresnet_l_448`, and the same with `BinaryCrossEntropy`",
        InSmall("multilabel", _seeds("asymmetric", "cross_entropy"), "asymmetric loss", "binary cross-entropy"),
    ),
    Claim(
        "the asymmetric loss is better than the focal loss",
        "",
        ASL,
        "`tresnet train coco_tresnet_l_448`, and the same with `FocalLoss`",
        InSmall("multilabel", _seeds("asymmetric", "focal"), "asymmetric loss", "focal loss"),
    ),
    Claim(
        "ML-Decoder is better than a linear head",
        "",
        ML_DECODER,
        "`tresnet train coco_tresnet_v2_l_448_ml_decoder`, and the same with `LinearHead`",
        InSmall("multilabel", _seeds("ml_decoder", "asymmetric"), "ML-Decoder", "linear head"),
    ),
    Claim(
        "pretraining helps: labels",
        "",
        PAPER,
        "`tresnet train coco_tresnet_l_448`, and the same with `pretrained=None`",
        InSmall("multilabel", _seeds("asymmetric", "random"), "pretrained on Tiny ImageNet", "random weights"),
    ),
    Claim(
        "pretraining helps: labels, real ImageNet weights",
        "",
        PAPER,
        "the same",
        InSmall("imagenet_weights", (("imagenet", "random"),), "ImageNet weights", "random weights"),
    ),
    Claim(
        "pretraining helps: boxes",
        "",
        PAPER,
        "`tresnet train retinanet_tresnet_m`",
        InSmall("detection", (("pretrained", "random"),), "pretrained on Tiny ImageNet", "random weights"),
    ),
    Claim(
        "a larger input after short fine-tuning is better (ImageNet, M, 224 to 448)",
        "80.8 to 81.7",
        RELEASE,
        "`tresnet train imagenet_tresnet_m_448`",
        InSmall("larger_input", (("at_96", "at_64"),), "one more epoch at 96", "one more epoch at 64"),
    ),
    Claim("CIFAR-10 top-1, XL at 224", "99.0", PAPER, "`tresnet train cifar10_tresnet_xl_224`"),
    Claim("CIFAR-100 top-1, XL at 224", "91.5", PAPER, "`tresnet train cifar100_tresnet_xl_224`"),
    Claim("Stanford Cars top-1, L at 368", "96.0", PAPER, "`tresnet train cars_tresnet_l_368`"),
    Claim("Oxford Flowers top-1, L at 368", "99.1", PAPER, "`tresnet train flowers_tresnet_l_368`"),
    Claim(
        "detectors on TResNet are better than on ResNet-50 (COCO, FCOS with ATSS)",
        "",
        PAPER,
        "`tresnet train fcos_atss_tresnet_m`",
    ),
    Claim(
        "the in-place norm needs less memory: a larger batch fits",
        "",
        PAPER,
        "`tresnet benchmark networks` on a GPU",
        elsewhere="bytes for the backward pass and speed on a CPU: [Performance](performance.md)",
    ),
    Claim(
        "images/s in training on a V100, ResNet-50, M, L, XL",
        "805, 730, 345, 250",
        PAPER,
        "`tresnet benchmark networks` on a GPU",
    ),
    Claim(
        "images/s in inference on a V100, ResNet-50, M, L, XL",
        "2830, 2930, 1390, 1060",
        PAPER,
        "`tresnet benchmark networks` on a GPU",
    ),
    Claim(
        "largest batch on a V100, ResNet-50, M, L, XL",
        "288, 512, 316, 240",
        PAPER,
        "`tresnet benchmark networks` on a GPU",
    ),
)
