"""load_model reads the checkpoints of trainings."""

import pytest
import torch
from running.small_data import CLASSES, CUSTOM, call, make_small_data, train

from tresnet_downstream import load_model, predict

DECODER = {
    "model__head__type": "MLDecoderHead",
    "model__head__embed_dim": 32,
    "model__head__num_heads": 4,
    "model__head__feedforward_dim": 64,
    "model__backbone__slopes": (0.05, 0.02),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_small_data(folder / "data")
    train(folder / "data", folder / "work", config=CUSTOM, **DECODER)
    return folder


def test_trained_checkpoint_has_network_classes_and_preprocessing(trained):
    model = load_model(trained / "work/best.pth")
    assert (model.classes, model.input_size, model.variant) == (CLASSES, 32, "custom")
    assert model.backbone.variant.slopes == (0.05, 0.02)
    assert model.head.decoder.multihead_attn.num_heads == 4
    assert predict(model, trained / "data/pictures/val_00.jpg").shape == (1, 3)


@pytest.mark.parametrize(("which", "key"), [("raw", "state_dict"), ("averaged", "averaged_state_dict")])
def test_raw_and_averaged_weights_can_be_loaded(trained, which, key):
    stored = torch.load(trained / "work/best.pth", weights_only=True)[key]
    model = load_model(trained / "work/best.pth", weights=which)
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_training_starts_from_all_of_a_checkpoint_with_load_from(trained, tmp_path):
    changes = {**DECODER, "load_from": trained / "work/best.pth", "max_lr": 1e-30, "max_epochs": 1}
    printed = train(trained / "data", tmp_path, config=CUSTOM, **changes)
    assert "ImageClassifier starts from" in printed
    assert "the head is not loaded" not in printed
    taken = torch.load(tmp_path / "epoch_1.pth", weights_only=True)["state_dict"]
    wanted = load_model(trained / "work/best.pth").state_dict()
    assert torch.equal(taken["head.group_weight"], wanted["head.group_weight"])


def test_a_resumed_run_does_not_need_its_start_file(trained, tmp_path):
    train(trained / "data", tmp_path, config=CUSTOM, pretrained=trained / "work/best.pth", **DECODER, stop_epoch=1)
    train(trained / "data", tmp_path, "--resume", config=CUSTOM, pretrained="gone.pth", **DECODER)


def test_predict_tool_labels_pictures_with_a_trained_checkpoint(trained):
    status, printed, err = call(
        "predict", [trained / "work/best.pth", trained / "data/pictures", "--threshold", "0.01"]
    )
    assert (status, err) == (0, "")
    assert len(printed.splitlines()) == 35
