"""TResNet in MMDetection satisfies the conventions that MMDetection tests its own backbones for."""

import gzip
import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from running.small_data import ROOT

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.weights.formats import translate


def build(**options):
    init_default_scope("mmdet")
    return MODELS.build({"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25, **options})


def test_mmdetection_builds_the_same_class_by_name():
    assert type(build()) is TResNet


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2, 3, 4])
def test_frozen_stages_have_no_gradient_and_keep_their_statistics(frozen_stages):
    backbone = build(frozen_stages=frozen_stages).train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    loss = sum(stage.square().mean() for stage in backbone(torch.rand(2, 3, 64, 64)))
    if frozen_stages < 4:
        loss.backward()
    frozen = ("stem.", *(f"layer{stage}." for stage in range(1, frozen_stages + 1))) if frozen_stages >= 0 else ()
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen or "-")
        assert (parameter.grad is None) is name.startswith(frozen or "-")
    for name, buffer in backbone.named_buffers():
        if name.endswith("running_mean"):
            assert torch.equal(buffer, before[name]) is name.startswith(frozen or "-")


def test_norm_eval_keeps_every_norms_statistics_and_trains_its_weights():
    backbone = build(norm_eval=True).train()
    assert backbone.training
    assert not any(norm.training for norm in backbone.norms())
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    sum(stage.square().mean() for stage in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())
    assert all(norm.weight.grad is not None for norm in backbone.norms())


@pytest.mark.parametrize("out_indices", [(0,), (1, 3), (0, 1, 2, 3)])
def test_stages_asked_for_are_given_with_their_channels_and_strides(out_indices):
    backbone = build(out_indices=out_indices).eval()
    stages = backbone(torch.rand(1, 3, 64, 96))
    assert len(stages) == len(out_indices)
    for stage, index in zip(stages, out_indices, strict=True):
        info = backbone.feature_info[index]
        assert stage.shape == (1, info["channels"], 64 // info["stride"], 96 // info["stride"])


def test_state_dict_names_are_stable():
    """Those of the published release, translated: a checkpoint of today is one of tomorrow."""
    keys = json.loads(gzip.decompress((ROOT / "tests/golden/official_tresnet_m.json.gz").read_bytes()))["keys"]
    release = {name: torch.zeros(shape) for name, shape in (keys.items() if isinstance(keys, dict) else keys)}
    names = {name.removeprefix("backbone.") for name in translate(release).state_dict if not name.startswith("head.")}
    ours = TResNet("m").state_dict().keys()
    assert names | {name for name in ours if name.endswith("num_batches_tracked")} == ours
    assert {"stem.conv.weight", "stem.norm.running_var", "layer1.0.conv1.weight", "layer4.2.norm3.bias"} <= ours
