"""ResNet-RS and EfficientNet train in all three tasks after a change of one line."""

import pytest
from detection.small_boxes import call
from running import small_data, small_folders

pytest.importorskip("timm", reason="needs the extra timm")

NETWORKS = ["resnetrs50", "efficientnet_b1"]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("network", NETWORKS)]


def one_line(network):
    return {"model__backbone": f"dict(_delete_=True,type='TimmNetwork',model='{network}')"}


def without_tresnet(settings):
    return {key: value for key, value in settings.items() if not key.startswith("model.backbone.")}


def test_several_labels(tmp_path, monkeypatch, network):
    monkeypatch.setattr(small_data, "SMALL_NETWORK", without_tresnet(small_data.SMALL_NETWORK))
    data = small_data.make_small_data(tmp_path / "data", 8, 4)
    out = small_data.train(data, tmp_path / "run", max_epochs=1, **one_line(network))
    assert "epoch 1/1: loss per image" in out


def test_one_label(tmp_path, monkeypatch, network):
    monkeypatch.setattr(small_folders, "SMALL", without_tresnet(small_folders.SMALL))
    folders = small_folders.make_class_folders(tmp_path / "data", (4, 2))
    out = small_folders.train(folders, tmp_path / "run", max_epochs=1, **one_line(network))
    assert "epoch 1/1: loss per image" in out


def test_boxes(boxes, tmp_path, network):
    from detection.small_boxes import CONFIG, data_options

    options = {
        **data_options(boxes),
        "model.backbone": f"dict(_delete_=True,type='TimmNetwork',model='{network}')",
        "train_dataloader.num_workers": 0,
        "val_dataloader.num_workers": 0,
        "train_dataloader.batch_size": 4,
        "train_cfg.max_epochs": 1,
        "train_cfg.val_interval": 1,
    }
    arguments = ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
    status, out, err = call("train_detection", [CONFIG, "--work-dir", tmp_path, *arguments])
    assert status == 0, err
    assert "epoch 1/1: loss" in out
