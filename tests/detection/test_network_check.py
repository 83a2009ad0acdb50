"""If parts of a detector do not fit, the error names the config key, and the detector is not changed."""

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

import mmdet
from detection.small_boxes import ROOT, write_mask_rcnn
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from tresnet_downstream.detection.network_check import check_classes, check_network, classes_with_boxes, has_masks
from tresnet_downstream.errors import UserError


def built(path, **changes):
    init_default_scope("mmdet")
    config = Config.fromfile(path)
    config.merge_from_dict({key.replace("__", "."): value for key, value in changes.items()})
    return MODELS.build(copy.deepcopy(config.model)), config.model


@pytest.fixture
def mask_rcnn(tmp_path):
    return write_mask_rcnn(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__neck__out_channels": 32}, ["model.rpn_head.in_channels=16", "the neck returns 32 in each map"]),
        (
            {"model__roi_head__bbox_roi_extractor__out_channels": 32},
            ["model.roi_head.bbox_roi_extractor.out_channels=32", "receives 16"],
        ),
        (
            {"model__roi_head__bbox_head__roi_feat_size": 14},
            ["model.roi_head.bbox_head", "expects 3,136 input channels and receives 784", "roi_feat_size"],
        ),
        (
            {"model__roi_head__mask_head__in_channels": 8},
            ["model.roi_head.mask_head.in_channels=8", "model.roi_head.mask_roi_extractor.out_channels is 16"],
        ),
    ],
)
def test_the_key_of_the_part_that_does_not_fit_is_named(mask_rcnn, changes, words):
    detector, config = built(mask_rcnn, **changes)
    with pytest.raises(UserError) as refusal:
        check_network(detector, config)
    for word in words:
        assert word in str(refusal.value)


def test_a_detector_that_fits_stays_as_it_is(mask_rcnn):
    detector, config = built(mask_rcnn)
    detector.train()
    detector.backbone.layer1.eval()
    modes = {name: module.training for name, module in detector.named_modules()}
    values = copy.deepcopy(detector.state_dict())
    state = torch.get_rng_state()
    check_network(detector, config)
    assert {name: module.training for name, module in detector.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, values[name]) for name, value in detector.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in detector.modules())


@pytest.mark.parametrize("name", ["retinanet_tresnet_m", "fcos_tresnet_m", "atss_tresnet_m", "faster_rcnn_tresnet_m"])
def test_our_configs_fit(name):
    check_network(*built(ROOT / "configs" / f"{name}.py", model__backbone__init_cfg=None))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "yolo/yolov3_d53_8xb8-320-273e_coco.py",  # its neck names the channels in reverse
        "ssd/ssd300_coco.py",
        "yolof/yolof_r50-c5_8xb8-1x_coco.py",
        "detr/detr_r50_8xb2-150e_coco.py",
        "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
        "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py",  # cannot be run on a picture without boxes
        "fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py",  # nor this one, without proposals
    ],
)
def test_mmdetections_own_detectors_fit(name):
    check_network(*built(Path(mmdet.__file__).parent / ".mim/configs" / name, model__backbone__init_cfg=None))


def test_heads_of_other_numbers_of_classes_are_named(mask_rcnn):
    detector, config = built(mask_rcnn)
    check_classes(detector, config, [str(number) for number in range(80)])
    with pytest.raises(UserError, match=r"model\.roi_head\.bbox_head\.num_classes is 80, and the data has 2 classes"):
        check_classes(detector, config, ("square", "disc"))


def test_boxes_of_panoptic_data_have_the_classes_of_things():
    assert classes_with_boxes({"classes": ("cat", "sky"), "thing_classes": ("cat",)}) == ("cat",)
    assert classes_with_boxes({"classes": ("cat", "sky")}) == ("cat", "sky")
    assert classes_with_boxes(None) == ()


def test_detectors_with_masks_are_known(mask_rcnn):
    assert has_masks(built(mask_rcnn)[0])
    faster = ROOT / "configs/faster_rcnn_tresnet_m.py"
    assert not has_masks(built(faster, model__backbone__init_cfg=None)[0])
