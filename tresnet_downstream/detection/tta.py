"""Test-time augmentation of detectors, as in MMDetection's test tool with ``--tta``."""

import copy
from collections.abc import Iterable, Iterator, Mapping

from mmengine.config import Config, ConfigDict

from tresnet_downstream.errors import UserError

# Defaults of tools/test.py in MMDetection 3.3 for configs without `tta_model` and `tta_pipeline`.
TTA_MODEL = {"type": "DetTTAModel", "tta_cfg": {"nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100}}
FLIPS = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def with_test_time_augmentation(config: Config) -> Config:
    """A copy of a config whose detector is tested on several views of each image.

    The views are set by ``tta_pipeline``, and the merging of their boxes by ``tta_model``. By default, the views are
    the image of the test pipeline and its mirror image, and non-maximum suppression at IoU 0.5 merges their boxes and
    keeps the best 100.

    Args:
        config: a config of MMDetection after :func:`follow_options`.

    Raises:
        UserError: if views cannot be added to the test pipeline.
    """
    config = copy.deepcopy(config)
    dataset = config.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if "tta_model" not in config:
        config.tta_model = copy.deepcopy(TTA_MODEL)
    if "tta_pipeline" not in config:
        *steps, packing = copy.deepcopy(dataset.pipeline)
        if _name(packing) != "PackDetInputs":
            raise UserError(
                f"test_dataloader.dataset.pipeline: its last step is {_name(packing)}, but test-time augmentation "
                "replaces PackDetInputs; write a tta_pipeline into the config"
            )
        views = [copy.deepcopy(FLIPS), [{"type": "PackDetInputs", "meta_keys": META_KEYS}]]
        config.tta_pipeline = [*steps, {"type": "TestTimeAug", "transforms": views}]
    dataset.pipeline = config.tta_pipeline
    config.model = ConfigDict(**config.tta_model, module=config.model)
    return config


def detector_config(config: Config) -> ConfigDict:
    """The config of the detector, without the wrapper of test-time augmentation."""
    return config.model.get("module", config.model)


def check_views(config: Config) -> None:
    """Checks the pipeline of a config with test-time augmentation.

    Raises:
        UserError: if it pads images before it flips them. MMDetection mirrors boxes within the image without padding,
            so boxes of the mirror image would be shifted.
    """
    names = [name for name in _names(config.get("tta_pipeline") or ()) if name in ("Pad", "RandomFlip")]
    if "Pad" in names and "RandomFlip" in names[names.index("Pad") :]:
        raise UserError(
            "tta_pipeline: pads images before it flips them, so boxes of the mirror image would be shifted by the "
            "padding; write a tta_pipeline with RandomFlip before Pad into the config"
        )


def description_of(config: Config) -> dict[str, str]:
    """The description of test-time augmentation in a config, for the record of a run."""
    transforms = next(step["transforms"] for step in config.tta_pipeline if _name(step) == "TestTimeAug")
    choices = [" or ".join(_text(step) for step in steps) for steps in transforms if len(steps) > 1]
    merging = {key: value for key, value in config.tta_model.items() if key != "type"}
    return {"model": f"{config.tta_model['type']} {_plain(merging)}", "views": ", each with ".join(choices)}


def _names(steps: Iterable[object]) -> Iterator[str]:
    """The types of a pipeline's steps in their order; alternatives are listed one after the other."""
    for step in steps:
        if isinstance(step, Mapping):
            yield _name(step)
            yield from _names(step.get("transforms") or ())
        elif isinstance(step, list | tuple):
            yield from _names(step)


def _name(step: object) -> str:
    return str(step.get("type") if isinstance(step, Mapping) else step).rpartition(".")[2]


def _text(step: Mapping[str, object]) -> str:
    arguments = ", ".join(f"{key}={_plain(value)}" for key, value in step.items() if key not in ("type", "_scope_"))
    return f"{_name(step)}({arguments})"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key != "_scope_"}
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
