import torch
from timm.layers import SEModule

from tresnet_downstream.backbones.branch_scaling import SqueezeExcite, drop_path


def test_squeeze_excite_equals_timms():
    ours, theirs = SqueezeExcite(8, 4), SEModule(8, rd_channels=4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(x * ours(x), theirs(x))


def test_drop_path_zeroes_whole_images_and_keeps_the_mean_of_the_others():
    x = torch.ones(64, 2, 3, 3)
    out = drop_path(x, 0.25, training=True)
    per_image = out.flatten(1)
    assert set(per_image.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(per_image.amin(1), per_image.amax(1))


def test_drop_path_is_the_identity_in_evaluation():
    x = torch.randn(2, 3, 4, 4)
    assert drop_path(x, 0.5, training=False) is x
