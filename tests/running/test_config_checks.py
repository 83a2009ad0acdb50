"""What is checked of a config before anything is built."""

import pytest
from running.small_data import DIGITS

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.config_checks import check_config


def test_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(DIGITS, ["visualizer.vis_backends.0.type=mmengine.WandbVisBackend"])
    with pytest.raises(UserError, match="pip install wandb"):
        check_config(config, ("train", "val"))
