"""Checks of a config before anything is built."""

import pytest
from running.small_data import DIGITS

from tresnet_downstream.classification import losses  # noqa: F401 - registers AsymmetricLoss
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS, TRANSFORMS
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.config_checks import check_config, mistakes_in_types


def test_folder_with_a_packages_name_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(DIGITS, ["visualizer.vis_backends.0.type=mmengine.WandbVisBackend"])
    with pytest.raises(UserError, match="pip install wandb"):
        check_config(config, ("train", "val"))


@pytest.mark.parametrize(
    ("registry", "name", "nearest"),
    [(MODELS, "AsymetricLoss", "AsymmetricLoss"), (MODELS, "TresNet", "TResNet"), (TRANSFORMS, "Qqqqqqqq", None)],
)
def test_an_unknown_type_names_the_nearest_registered_ones(registry, name, nearest):
    with pytest.raises(UserError, match=f"type='{name}' in the config: there is no ") as refused, mistakes_in_types():
        registry.build({"type": name})
    assert (f"nearest: {nearest}" in str(refused.value)) == (nearest is not None)
    assert ("nearest" in str(refused.value)) == (nearest is not None)
