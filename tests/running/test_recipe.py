"""The published training loop equals our training, step by step."""

import numpy as np
import pytest
import torch
from golden_networks import golden, release_state_dict
from mmengine.hooks import Hook
from torch.utils.data import Dataset

from tresnet_downstream.classification.training import train_classifier
from tresnet_downstream.registry import DATASETS, HOOKS
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.hooks import weight_average
from tresnet_downstream.weights.formats import backbone_name


class RecipeData(Dataset):
    """The golden file's batches of 4: step ``5 * epoch + batch``."""

    def __init__(self, classes=None):
        self.classes = ("a", "b", "c", "d", "e")
        self.metainfo = {"classes": self.classes}

    def __len__(self):
        return 20

    def __getitem__(self, key):
        epoch, index = key
        draw = np.random.RandomState(1000 + 5 * epoch + index // 4)
        images = draw.random_sample((4, 3, 64, 64))
        targets = draw.random_sample((4, 5)) < 0.3
        # The preprocessor divides by 255.
        image, target = torch.tensor(images[index % 4]) * 255, torch.tensor(targets[index % 4]).to(torch.int8)
        return {"inputs": image, "targets": target, "image": str(index), "skipped": 0}


class Observer(Hook):
    """Sets the first weights and writes down what the golden file has of each step."""

    priority = "LOWEST"

    # On the class: MMEngine prints whole configs, and tensors would fill pages.
    weights, log = None, None

    def before_run(self, runner):
        runner.model.load_state_dict(self.weights)

    def before_train_iter(self, runner, *_, **__):
        group = runner.optim_wrapper.optimizer.param_groups[0]
        self.log.append({"lr": group["lr"], "beta1": group["betas"][0]})

    def after_train_iter(self, runner, *_, outputs, **__):
        averaged = weight_average(runner)
        buffers = dict(averaged.named_buffers())
        self.log[-1] |= {
            "loss": outputs["loss"].item(),
            "weight_norm": norm(runner.model.parameters()),
            "ema_weight_norm": norm(averaged.parameters()),
            "ema_running_mean_norm": norm(b for name, b in buffers.items() if name.endswith("running_mean")),
        }


def norm(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).norm().item()


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("norm_kind", ["inplace", "batchnorm"])
@pytest.mark.slow
def test_twenty_steps_equal_the_release(tmp_path, norm_kind):
    expected = golden("recipe_trajectory")
    recipe, network = expected["recipe"], expected["network"]
    config = load_config(
        "configs/coco_tresnet_m_224.py",
        [
            f"max_lr={recipe['max_lr']}",
            f"max_epochs={recipe['epochs']}",
            f"average_decay={recipe['ema_decay']}",
            f"weight_decay={recipe['weight_decay']}",
            "batch_size=4",
            "num_workers=0",
            "pretrained=None",
            f"model.backbone.layers={network['layers']}".replace(" ", ""),
            f"model.backbone.width={network['width']}",
            f"model.backbone.norm={norm_kind}",
            f"model.head.num_classes={network['num_classes']}",
        ],
    )
    config.work_dir = str(tmp_path)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset = {"type": "RecipeData"}
        loader.sampler.shuffle = False
    weights = {
        f"backbone.{backbone_name(key[5:])}" if key.startswith("body.") else key: value
        for key, value in release_state_dict(expected["keys"]).items()
    }
    log = []
    Observer.weights, Observer.log = weights, log
    config.custom_hooks.append({"type": "Observer"})
    DATASETS.register_module(module=RecipeData, force=True)
    HOOKS.register_module(module=Observer, force=True)

    train_classifier(config)

    assert len(log) == len(expected["steps"]) == 20
    for ours, theirs in zip(log, expected["steps"], strict=True):
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], rel=1e-6), (theirs["step"], name)
