"""Small networks whose norms have statistics and weights of both signs, as after a long training."""

import numpy as np
import torch
from PIL import Image

from tresnet_downstream.backbones import ActivatedBatchNorm
from tresnet_downstream.classification import ImageClassifier

SMALL = {"type": "TResNet", "layers": (1, 2, 2, 1), "width": 0.25}
V2 = {**SMALL, "variant": "v2_l"}
TIMM = {"type": "TimmNetwork", "model": "resnet18"}


def drawn(network):
    """The network, its norms filled with numbers, in evaluation mode."""
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, ActivatedBatchNorm):
                norm.weight.copy_(torch.randn(norm.num_features)).view(-1)[::8] = 0
                norm.bias.normal_(0, 0.2)
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.3, 2)
    return network.eval()


def classifier(backbone=SMALL, head="LinearHead", size=64, **settings):
    """A classifier of five classes with logits of about 1."""
    model = drawn(ImageClassifier(backbone, {"type": head}, classes=["cat", "dog", "Ærø", "d", "e"], **settings))
    model.pipeline = ({"type": "SquashResize", "size": size},)
    if head == "LinearHead":
        with torch.no_grad():
            model.head.fc.weight.normal_(0, 1)
    return model


def write_pictures(folder, number):
    """Pictures of coloured blocks, of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.RandomState(0)
    for index in range(number):
        blocks = Image.fromarray(draw.randint(0, 255, (6, 8, 3), np.uint8))
        blocks.resize((60 + index % 7, 50), Image.Resampling.BICUBIC).save(folder / f"{index:03}.png")
    return folder
