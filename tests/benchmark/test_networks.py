"""The table of networks, against published counts of parameters and multiply-adds."""

import sys

import pytest
import torch
from torch import nn

from tresnet_downstream.backbones import use_triton
from tresnet_downstream.backbones.lean import acceleration
from tresnet_downstream.benchmark.networks import NETWORKS, network_named, on_torchs_operators
from tresnet_downstream.benchmark.work import multiply_adds
from tresnet_downstream.errors import UserError

# Millions of parameters, billions of multiply-adds at 224: TResNet's release, and torchvision's page of models.
PUBLISHED = {
    "tresnet_m": (31.4, 5.7),
    "timm_tresnet_m": (31.4, 5.7),
    "resnet50": (25.6, 4.1),
    "resnext50": (25.0, 4.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    pytest.importorskip("timm", reason="needs the extra timm")
    network = network_named(name).build()
    parameters, macs = PUBLISHED[name]
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, abs=0.05)
    assert multiply_adds(network, 224) / 1e9 == pytest.approx(macs, abs=0.06)
    assert network.training


def test_timm_has_every_network_of_the_table():
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    for name, network in NETWORKS.items():
        for cell in network.build.__closure__ if not network.ours else ():
            if isinstance(cell.cell_contents, str):
                assert timm.is_model(cell.cell_contents), name


def test_checkpointing_of_timm_is_switched_on():
    pytest.importorskip("timm", reason="needs the extra timm")
    assert network_named("timm_tresnet_m_cp").build().grad_checkpointing
    assert not network_named("timm_tresnet_m").build().grad_checkpointing
    assert [stage.checkpointed for stage in network_named("tresnet_m_cp").build().backbone.stages] == [3, 4, 1, 0]


def test_a_row_on_torchs_operators_turns_the_kernels_off_only_for_itself():
    class Network(nn.Module):
        def forward(self, images):
            self.on = acceleration._Switch.on
            return images

    assert NETWORKS["tresnet_m_torch_kernels"].build.__qualname__.startswith(on_torchs_operators.__name__)
    network = on_torchs_operators(Network)()
    before = use_triton(True)
    try:
        network(torch.zeros(1))
        assert not network.on
        assert acceleration._Switch.on
    finally:
        use_triton(before)


def test_missing_timm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'tresnet-downstream\[timm\]'"):
        network_named("resnet50").build()


def test_every_published_score_has_a_source_and_a_size():
    for network in NETWORKS.values():
        for size, published in network.published.items():
            assert 78 < published.percent < 85
            assert 160 <= size <= 448
            assert published.source
