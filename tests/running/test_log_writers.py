"""MMEngine's log writers: TensorBoard by the key `tracker`, and errors of others in one line."""

import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization import BaseVisBackend
from mmengine.visualization.vis_backend import force_init_env
from running.small_data import refuses_to_train

from tresnet_downstream.running.log_writers import with_tensorboard

LOCAL, TENSORBOARD = {"type": "LocalVisBackend"}, {"type": "mmengine.TensorboardVisBackend"}


def test_tensorboard_is_added_where_it_is_named_and_not_there():
    named = [{"type": "tensorboard"}]
    assert with_tensorboard({"vis_backends": [LOCAL]}, named)["vis_backends"] == [LOCAL, TENSORBOARD]
    assert with_tensorboard({"type": "Visualizer"}, named)["vis_backends"] == [TENSORBOARD]
    own = {"vis_backends": [{"type": "TensorboardVisBackend"}]}
    assert with_tensorboard(own, named) == own
    assert with_tensorboard({"vis_backends": [LOCAL]}, [{"type": "wandb"}])["vis_backends"] == [LOCAL]


@pytest.fixture
def writer_without_login():
    class LoginVisBackend(BaseVisBackend):
        def _init_env(self):
            raise RuntimeError("No API key\nconfigured")

        @property
        @force_init_env
        def experiment(self):
            return self

    VISBACKENDS.register_module(module=LoginVisBackend)
    yield
    VISBACKENDS._module_dict.pop("LoginVisBackend")


@pytest.mark.usefixtures("writer_without_login")
def test_writer_that_cannot_start_is_one_line(data, tmp_path):
    refuses_to_train(
        data,
        tmp_path / "run",
        "LoginVisBackend cannot start (No API key configured)",
        "remove it from visualizer.vis_backends",
        visualizer__vis_backends__0__type="LoginVisBackend",
    )
