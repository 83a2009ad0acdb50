"""The catalogue of public networks: where their files are, how images are prepared, and the published scores.

File sizes are computed from the number of parameters, since no release states them. They agree with the sizes that the
hub shows for three of the files (126, 210 and 224 MB). Checksums are published only for the older timm files, whose
names contain the first digits. For files of the hub, the hub's cache has the checksums. All files of one entry have the
same weights, with the names of different projects.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import NamedTuple

IMAGENET_1K = "ImageNet-1k"
IMAGENET_21K = "ImageNet-21K-P"
COCO = "MS-COCO 2014"
OPEN_IMAGES = "OpenImages V6"
VOC = "PASCAL VOC 2007"
NUS_WIDE = "NUS-WIDE"
STANFORD_CARS = "Stanford Cars"
UNSTATED = "not stated"

# The metrics of the published scores, in percent.
TOP_1, MAP = "top-1", "mAP"


class Place(NamedTuple):
    """The location of a public file.

    Attributes:
        url: ``https://...``, or ``hf://OWNER/REPOSITORY/FILE`` on the Hugging Face hub.
        sha256: the first digits of the file's checksum; empty if none is published.

    Examples:
        >>> Place("hf://timm/tresnet_m.miil_in1k/model.safetensors").file_name
        'tresnet_m.miil_in1k.safetensors'
    """

    url: str
    sha256: str = ""

    @property
    def file_name(self) -> str:
        """The name of the file in a mirror: the published name; for a file of the hub, the name of its repository."""
        *_, owner, name = self.url.split("/")
        return f"{owner}{PurePosixPath(name).suffix}" if self.url.startswith("hf://") else name


@dataclass(frozen=True)
class PublicWeight:
    """One network with its public weights.

    Attributes:
        places: locations of files with these weights, in the order in which they are tried.
        variant: variant of the TResNet; for another network, its name.
        dataset: the training data.
        num_classes: number of logits; 0 if not stated.
        input_size: height and width of the images of the published score, in pixels.
        resize: ``squash`` resizes both sides to ``input_size``; ``crop`` resizes the short side to
            ``input_size / 0.875`` and crops the centre.
        megabytes: size of a file, in units of 10^6 bytes.
        score: published score, in percent; None if none is published.
        head: ``linear``, ``bottleneck`` or ``ml_decoder``.
        slopes: negative slopes of the leaky ReLU in the stem and in the blocks; None for 1e-2 and 1e-3.
        network: name of the network in timm; None for a TResNet.

    Examples:
        >>> entry = CATALOGUE["m_in1k_224"]
        >>> entry.variant, entry.num_classes, entry.metric, entry.score
        ('m', 1000, 'top-1', 80.8)
    """

    places: tuple[Place, ...]
    variant: str
    dataset: str
    num_classes: int
    input_size: int
    resize: str
    megabytes: int
    score: float | None = None
    head: str = "linear"
    slopes: tuple[float, float] | None = None
    network: str | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels (sigmoid), not exactly one (softmax)."""
        return self.dataset in (COCO, OPEN_IMAGES, VOC, NUS_WIDE, UNSTATED)

    @property
    def metric(self) -> str:
        """The metric of the score: ``mAP`` or ``top-1``."""
        return MAP if self.multi_label else TOP_1


def _hub(repository: str) -> Place:
    return Place(f"hf://timm/{repository}/model.safetensors")


def _timm_2020(file: str) -> Place:
    """A file of timm's releases of 2020, whose names end with the first digits of the checksum."""
    folder = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-tresnet"
    return Place(f"{folder}/{file}", sha256=PurePosixPath(file).stem.rpartition("-")[2])


def _resnet_rs(depth: int, file: str, size: int, megabytes: int, score: float) -> PublicWeight:
    """A network of the ResNet-RS release, converted by timm, with the score at the size of its training."""
    name, folder = f"resnetrs{depth}", "https://github.com/rwightman/pytorch-image-models/releases/download"
    places = (_hub(f"{name}.tf_in1k"), Place(f"{folder}/{file}", sha256=PurePosixPath(file).stem.rpartition("-")[2]))
    return PublicWeight(places, name, IMAGENET_1K, 1000, size, "crop", megabytes, score, network=name)


def _release(file: str) -> Place:
    return Place(f"https://miil-public-eu.oss-eu-central-1.aliyuncs.com/model-zoo/{file}")


CATALOGUE: dict[str, PublicWeight] = {
    # ImageNet-1k. The published scores at 448 are for squashed images.
    "m_in1k_224": PublicWeight(
        (
            _hub("tresnet_m.miil_in1k"),
            _timm_2020("tresnet_m_80_8-dbc13962.pth"),
            _release("tresnet/tresnet_m.pth"),
        ),
        *("m", IMAGENET_1K, 1000, 224, "crop", 126, 80.8),
    ),
    "l_in1k_224": PublicWeight(
        (
            _hub("tresnet_l.miil_in1k"),
            _timm_2020("tresnet_l_81_5-235b486c.pth"),
            _release("tresnet/tresnet_l.pth"),
        ),
        *("l", IMAGENET_1K, 1000, 224, "crop", 224, 81.5),
    ),
    "xl_in1k_224": PublicWeight(
        (
            _hub("tresnet_xl.miil_in1k"),
            _timm_2020("tresnet_xl_82_0-a2d51b00.pth"),
            _release("tresnet/tresnet_xl.pth"),
        ),
        *("xl", IMAGENET_1K, 1000, 224, "crop", 314, 82.0),
    ),
    "m_in1k_448": PublicWeight(
        (
            _hub("tresnet_m.miil_in1k_448"),
            _timm_2020("tresnet_m_448-bc359d10.pth"),
            _release("tresnet/tresnet_m_448.pth"),
        ),
        *("m", IMAGENET_1K, 1000, 448, "squash", 126, 81.7),
    ),
    "l_in1k_448": PublicWeight(
        (
            _hub("tresnet_l.miil_in1k_448"),
            _timm_2020("tresnet_l_448-940d0cd1.pth"),
            _release("tresnet/tresnet_l_448.pth"),
        ),
        *("l", IMAGENET_1K, 1000, 448, "squash", 224, 82.3),
    ),
    "xl_in1k_448": PublicWeight(
        (_hub("tresnet_xl.miil_in1k_448"), _release("tresnet/tresnet_xl_448.pth")),
        *("xl", IMAGENET_1K, 1000, 448, "squash", 314, 83.1),
    ),
    # ImageNet-21K, and networks fine-tuned from it.
    "m_in21k_224": PublicWeight(
        (_hub("tresnet_m.miil_in21k"), _release("ImageNet_21K_P/models/tresnet_m_miil_21k.pth")),
        *("m", IMAGENET_21K, 11221, 224, "crop", 210),
    ),
    "m_in21k_ft_in1k_224": PublicWeight(
        (_hub("tresnet_m.miil_in21k_ft_in1k"),),
        *("m", IMAGENET_1K, 1000, 224, "crop", 126, 83.1),
    ),
    "v2_l_in21k_224": PublicWeight(
        (_hub("tresnet_v2_l.miil_in21k"), _release("ImageNet_21K_P/models/tresnet_l_v2_miil_21k.pth")),
        *("v2_l", IMAGENET_21K, 11221, 224, "crop", 269),
    ),
    "v2_l_in21k_ft_in1k_224": PublicWeight(
        (_hub("tresnet_v2_l.miil_in21k_ft_in1k"),),
        *("v2_l", IMAGENET_1K, 1000, 224, "crop", 185, 83.9),
    ),
    # ML-Decoder's 90.1 was trained from this file. Its training data and head are not stated; `megabytes` is the
    # backbone's.
    "v2_l_ml_decoder_start": PublicWeight(
        (_release("ML_Decoder/tresnet_l_pretrain_ml_decoder.pth"),),
        *("v2_l", UNSTATED, 0, 448, "squash", 177),
    ),
    # Multi-label with the asymmetric loss. The NUS-WIDE file has a 448 in its name; users measured 65.2 at 240 and 64.0
    # at 448.
    "m_coco_asl_224": PublicWeight(
        (_release("ASL/MS_COCO_TRresNet_M_224_81.8.pth"),),
        *("m", COCO, 80, 224, "squash", 118, 81.8),
    ),
    "l_coco_asl_448": PublicWeight(
        (_release("ASL/MS_COCO_TRresNet_L_448_86.6.pth"),),
        *("l", COCO, 80, 448, "squash", 215, 86.6),
    ),
    "xl_coco_asl_640": PublicWeight(
        (_release("ASL/MS_COCO_TResNet_xl_640_88.4.pth"),),
        *("xl", COCO, 80, 640, "squash", 304, 88.4),
    ),
    "l_open_images_asl_448": PublicWeight(
        (_release("ASL/Open_ImagesV6_TRresNet_L_448.pth"),),
        *("l", OPEN_IMAGES, 9605, 448, "squash", 224, 86.3, "bottleneck"),
    ),
    "xl_voc_asl_448": PublicWeight(
        (_release("ASL/PASCAL_VOC_TResNet_xl_448_96.0.pth"),),
        *("xl", VOC, 20, 448, "squash", 304, 96.0),
    ),
    "l_nus_wide_asl_240": PublicWeight(
        (_release("ASL/NUS_WIDE_TRresNet_L_448_65.2.pth"),),
        *("l", NUS_WIDE, 81, 240, "squash", 215, 65.2),
    ),
    # Multi-label with ML-Decoder.
    "m_coco_ml_decoder_224": PublicWeight(
        (_release("ML_Decoder/tresnet_m_COCO_224_84_2.pth"),),
        *("m", COCO, 80, 224, "squash", 146, 84.2, "ml_decoder"),
    ),
    "v2_l_coco_ml_decoder_448": PublicWeight(
        (_release("ML_Decoder/tresnet_l_COCO__448_90_0.pth"),),
        *("v2_l", COCO, 80, 448, "squash", 206, 90.1, "ml_decoder"),
    ),
    "v2_xl_coco_ml_decoder_640": PublicWeight(
        (_release("ML_Decoder/tresnet_xl_COCO_640_91_4.pth"),),
        *("v2_xl", COCO, 80, 640, "squash", 298, 91.4, "ml_decoder"),
    ),
    "m_open_images_ml_decoder_224": PublicWeight(
        (_release("ML_Decoder/tresnet_m_open_images_200_groups_86_8.pth"),),
        *("m", OPEN_IMAGES, 9605, 224, "squash", 177, 86.8, "ml_decoder"),
    ),
    # Stanford Cars.
    "v2_l_stanford_cars_368": PublicWeight(
        (_release("tresnet/stanford_cars_tresnet-l-v2_96_27.pth"),),
        *("v2_l", STANFORD_CARS, 196, 368, "squash", 179, 96.27, "linear", (1e-6, 1e-6)),
    ),
    "v2_l_stanford_cars_ml_decoder_384": PublicWeight(
        (_release("ML_Decoder/tresnet_l_stanford_card_96.41.pth"),),
        *("v2_l", STANFORD_CARS, 196, 384, "squash", 206, 96.41, "ml_decoder"),
    ),
    # ResNet-RS.
    "resnetrs50_in1k_160": _resnet_rs(50, "v0.1-rs-weights/resnetrs50_ema-6b53758b.pth", 160, 143, 78.8),
    "resnetrs101_in1k_192": _resnet_rs(101, "v0.1-rs-weights/resnetrs101_i192_ema-1509bbf6.pth", 192, 255, 81.2),
    "resnetrs152_in1k_256": _resnet_rs(152, "v0.1-rs-weights/resnetrs152_i256_ema-a9aff7f9.pth", 256, 347, 83.0),
    "resnetrs200_in1k_256": _resnet_rs(200, "v0.1-tpu-weights/resnetrs200_c-6b698b88.pth", 256, 374, 83.4),
    "resnetrs270_in1k_256": _resnet_rs(270, "v0.1-rs-weights/resnetrs270_ema-b40e674c.pth", 256, 520, 83.8),
    "resnetrs350_in1k_256": _resnet_rs(350, "v0.1-rs-weights/resnetrs350_i256_ema-5a1aa8f1.pth", 256, 657, 84.0),
    "resnetrs420_in1k_320": _resnet_rs(420, "v0.1-rs-weights/resnetrs420_ema-972dee69.pth", 320, 769, 84.4),
}


def imagenet_classes() -> tuple[str, ...]:
    """The class names of ImageNet-1k in the order of their WordNet numbers, spelled as in torchvision."""
    return tuple(files(__package__).joinpath("imagenet_1k_classes.txt").read_text(encoding="utf-8").splitlines())


def catalogue_table() -> str:
    """The catalogue as a text table with a line for each entry."""
    rows = [("name", "dataset", "classes", "variant", "head", "input", "MB", "published")]
    for name, entry in CATALOGUE.items():
        score = "-" if entry.score is None else f"{entry.metric} {entry.score:g}"
        size = f"{entry.input_size} {entry.resize}"
        classes, megabytes = f"{entry.num_classes:,}" if entry.num_classes else "-", str(entry.megabytes)
        rows.append((name, entry.dataset, classes, entry.variant, entry.head, size, megabytes, score))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
