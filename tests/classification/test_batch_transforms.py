"""Mixup, cutmix and random erasing: results equal timm's, with the random generators of the training."""

import random

import numpy as np
import pytest
import torch

from tresnet_downstream.classification import Mixup, RandomErasing
from tresnet_downstream.errors import UserError

timm_data = pytest.importorskip("timm.data", reason="needs the extra timm")


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 - what timm draws from
    random.seed(number)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_images_and_shares_are_timms(mode, alphas):
    images, targets = torch.rand(6, 3, 32, 32), torch.tensor([0, 3, 1, 1, 2, 4])
    theirs = timm_data.Mixup(*alphas, mode=mode, label_smoothing=0.0, num_classes=5)
    for number in range(4):
        seed(number)
        expected = theirs(images.clone(), targets)
        seed(number)
        mixed, shares = Mixup(*alphas, mode=mode)(images, targets, 5)
        assert torch.equal(mixed, expected[0])
        assert torch.equal(shares, expected[1])
        assert torch.allclose(shares.sum(1), torch.ones(6))


def test_last_image_of_an_odd_number_stays_and_the_batch_given_too():
    images, targets = torch.rand(5, 3, 16, 16), torch.arange(5)
    before = images.clone()
    mixed, shares = Mixup(1.0)(images, targets, 5)
    assert torch.equal(images, before)
    assert torch.equal(mixed[-1], images[-1])
    assert torch.equal(shares[-1], torch.eye(5)[4])
    assert not torch.equal(mixed[:4], images[:4])
    one, share = Mixup(1.0)(images[:1], targets[:1], 5)
    assert torch.equal(one, images[:1])
    assert torch.equal(share, torch.eye(5)[:1])


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erasing_is_timms_on_images_as_the_network_takes_them(mode):
    images, mean, std = torch.rand(8, 3, 32, 32), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    shape = (torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None])
    theirs = timm_data.random_erasing.RandomErasing(0.5, mode=mode, device="cpu")
    seed(1)
    expected = theirs((images - shape[0]) / shape[1])
    seed(1)
    erased, targets = RandomErasing(0.5, mode, mean, std)(images, torch.arange(8), 8)
    assert torch.allclose((erased - shape[0]) / shape[1], expected, atol=1e-5)
    assert targets.tolist() == list(range(8))
    assert 0 < ((erased - images).abs().amax((1, 2, 3)) > 1e-4).sum() < 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mixup(),
        lambda: Mixup(-1, 2),
        lambda: Mixup(1, prob=2),
        lambda: Mixup(1, mode="all"),
        lambda: RandomErasing(1.5),
        lambda: RandomErasing(mode="black"),
        lambda: RandomErasing(std=(0, 1, 1)),
    ],
)
def test_wrong_arguments_are_reported(make):
    with pytest.raises(UserError, match=r"Mixup|RandomErasing"):
        make()


def test_several_labels_are_not_mixed():
    with pytest.raises(UserError, match="one label per image"):
        Mixup(1.0)(torch.rand(2, 3, 4, 4), torch.zeros(2, 5), 5)
