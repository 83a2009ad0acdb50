"""The runner of joint models: the runner of detectors, with a label head on the backbone."""

from collections.abc import Mapping
from typing import Any, ClassVar

from mmengine.config import Config, ConfigDict
from torch import nn

from tresnet_downstream.detection.adjusted_config import OUR_DATA, SPLITS, annotation_file, datasets_of
from tresnet_downstream.detection.hooks import DetectionProgressHook
from tresnet_downstream.detection.network_check import detector_of
from tresnet_downstream.detection.runner import DetectionRunner
from tresnet_downstream.detection.tta import detector_config
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.coco import class_difference
from tresnet_downstream.joint.model import PARTS
from tresnet_downstream.joint.starting import classes_of
from tresnet_downstream.registry import HOOKS, MODELS, RUNNERS, SCOPE
from tresnet_downstream.running.runner import QuietRunner

MODEL, METRIC = f"{SCOPE}.LabelsAndBoxes", f"{SCOPE}.LabelsMetric"
# The model of an exported file, which is scored instead of a checkpoint.
EXPORTED = f"{SCOPE}.ScoredDetector"
DATA, BATCHES = f"{SCOPE}.LabelledBoxes", f"{SCOPE}.AlternatingBatchSampler"
OUR_IMPORT = f"{SCOPE}.joint"
# The keys of `labels` in a config: of the model, of the metric, and others.
OF_MODEL = {"head": "label_head", "loss": "label_loss", "loss_weights": "loss_weights", "rescore": "rescore"}
OF_METRIC = ("keep_empty", "difficult", "threshold", "top_k")
OTHERS = ("start_from", "train", "val", "test")


@RUNNERS.register_module()
class JointRunner(DetectionRunner):
    """The runner for a detector's config with the key ``labels``; it is the ``runner_type`` of such a config.

    In addition to :class:`DetectionRunner`, it replaces the ``model`` by a :class:`LabelsAndBoxes` with this detector,
    and adds a :class:`LabelsMetric`, which scores the labels. ``labels`` has the keys

    * ``head``, ``loss``, ``loss_weights`` and ``rescore``: see :class:`LabelsAndBoxes`;
    * ``start_from``: ``dict(labels=FILE, boxes=FILE)``, the files of a classifier and a detector to start from;
    * ``train``, ``val`` and ``test``: ``dict(ann_file=..., images=...)``, a label file (COCO, table or VOC) and the
      folder of its images, if the labels are not the classes of the boxes; see :class:`LabelledBoxes`. The default of
      ``test`` is ``val``;
    * ``keep_empty``, ``difficult``, ``threshold``, ``top_k``: see :class:`LabelsMetric`.
    """

    progress_hook: ClassVar[str] = "JointProgressHook"
    part_roots: ClassVar[tuple[str, ...]] = ("", "detector.")

    @classmethod
    def adjust(cls, cfg: Config) -> None:
        """Adjusts the config as :class:`DetectionRunner` does, and adds the label head to the detector."""
        labels = dict(cfg.get("labels") or {})
        if not labels:
            raise UserError("labels: is missing; a joint model needs labels=dict(head=..., loss=...) in its config")
        if unknown := set(labels) - {*OF_MODEL, *OF_METRIC, *OTHERS}:
            raise UserError(
                f"labels.{sorted(unknown)[0]}: is not a key; there are {', '.join([*OF_MODEL, *OTHERS, *OF_METRIC])}"
            )
        if detector_config(cfg) is not cfg.model:
            raise UserError("test-time augmentation is for detectors without labels; score without it")
        wrapped = cfg.model.get("type") == MODEL  # true in the copy of a config in a run folder
        _remove_label_files(cfg)
        super().adjust(cfg)
        _add_import(cfg)
        _add_metrics(cfg, labels)
        if cfg.model.get("type") == EXPORTED:
            if any(value is not None for value in dict(labels.get("rescore") or {}).values()):
                raise UserError("labels.rescore: an exported file cannot rescore boxes; leave it out")
            return
        classes = _classes(cfg)
        if not wrapped:
            cfg.model = ConfigDict(type=MODEL, detector=cfg.model)
        cfg.model.pop("init_cfg", None)  # in a copy; `labels.start_from` determines the files now
        cfg.model.update({OF_MODEL[key]: _scoped(value) for key, value in labels.items() if key in OF_MODEL})
        cfg.model.label_head = {**cfg.model.label_head, "num_classes": len(classes)}
        start = {part: path for part, path in dict(labels.get("start_from") or {}).items() if path}
        if set(start) - set(PARTS):
            raise UserError("labels.start_from: give dict(labels=FILE, boxes=FILE), or one of them")
        if start and not cfg.get("resume"):
            for part, path in start.items():
                require_classes(f"labels.start_from.{part}: {path}", classes_of(part, path), classes)
            cfg.model.init_cfg = {"type": "Parts", **start}
        _add_label_files(cfg, labels)

    @property
    def detector(self) -> nn.Module:
        """The detector in the joint model."""
        inner = detector_of(self.model)
        result: nn.Module = getattr(inner, "detector", inner)
        return result

    @property
    def detector_config(self) -> ConfigDict:
        """The config of the detector in the joint model."""
        return self.cfg.model.get("detector", self.cfg.model)


@RUNNERS.register_module()
class QuietJointRunner(QuietRunner, JointRunner):
    """A :class:`JointRunner` that prints only a progress bar on the terminal."""


@HOOKS.register_module()
class JointProgressHook(DetectionProgressHook):
    """Shows a progress bar on a terminal, and a line for each epoch with the loss, AP and mAP."""

    def scores_text(self, metrics: Mapping[str, Any]) -> str:
        """AP of the boxes and mAP of the labels, in percent."""
        parts = [super().scores_text(metrics)]
        if "mAP" in metrics:
            parts.append(f"mAP of labels {metrics['mAP']:.2f}")
        return ", ".join(filter(None, parts))


def require_classes(what: str, classes: tuple[str, ...], of_boxes: tuple[str, ...]) -> None:
    """Raises UserError with the difference, unless the classes are those of the boxes, in the same order."""
    if classes != of_boxes:
        raise UserError(f"{what}: {class_difference(classes, of_boxes)}; they must be the classes of the boxes")


def _scoped(part: Any) -> Any:
    """The config of a head or a loss with its scope, so that MMDetection's registry finds it too."""
    name = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(name, str) or "." in name:
        return part
    if MODELS.get(name) is None:
        raise UserError(f"labels: {name} is not registered; import the Python file that registers it (custom_imports)")
    return {**part, "type": f"{SCOPE}.{name}"}


def _classes(cfg: Config) -> tuple[str, ...]:
    for _, dataset in datasets_of(cfg):
        if classes := (dataset.get("metainfo") or {}).get("classes"):
            return tuple(classes)
    raise UserError("train_dataloader.dataset: has no classes, and its annotation file is missing")


def _add_import(cfg: Config) -> None:
    imports = cfg.custom_imports["imports"]
    if OUR_IMPORT not in imports:
        cfg.custom_imports.imports = [*imports, OUR_IMPORT]


def _remove_label_files(cfg: Config) -> None:
    """Reverts :func:`_add_label_files` in the copy of a config in a run folder, so that options take effect."""
    for _, dataset in datasets_of(cfg):
        if dataset.get("type") == DATA:
            dataset.type = OUR_DATA
            dataset.pop("labels", None)
    batches = (cfg.get("train_dataloader") or {}).get("batch_sampler") or {}
    if batches.get("type") != BATCHES:
        return
    drop_last = batches.get("drop_last", False)
    if batches.get("by_shape"):
        cfg.train_dataloader.batch_sampler = {"type": "AspectRatioBatchSampler", "drop_last": drop_last}
    else:
        cfg.train_dataloader.pop("batch_sampler")
        cfg.train_dataloader.drop_last = drop_last


def _add_label_files(cfg: Config, labels: Mapping[str, Any]) -> None:
    """Sets the label file of the training data, and the batch sampler that it needs."""
    files = {key: value for key, value in dict(labels.get("train") or {}).items() if value is not None}
    if not files:
        return
    for split, dataset in datasets_of(cfg):
        if split != "train":
            continue
        if dataset is not cfg.train_dataloader.dataset:
            raise UserError(
                "labels.train: images with labels but no boxes cannot be mixed with others, as "
                f"{cfg.train_dataloader.dataset.type} does; use the labels of the boxes, or another data set"
            )
        dataset.type, dataset.labels = DATA, files
    original = cfg.train_dataloader.get("batch_sampler") or {}
    cfg.train_dataloader.batch_sampler = {
        "type": BATCHES,
        "by_shape": "AspectRatio" in str(original.get("type")),
        # In torch, `drop_last` is an argument of the batch sampler if there is one.
        "drop_last": bool(cfg.train_dataloader.pop("drop_last", False) or original.get("drop_last", False)),
    }
    # In a batch without boxes, the neck and the head of the detector get no gradient.
    cfg.find_unused_parameters = True
    if "model_wrapper_cfg" in cfg:
        cfg.model_wrapper_cfg.find_unused_parameters = True


def _add_metrics(cfg: Config, labels: Mapping[str, Any]) -> None:
    options = {key: labels[key] for key in OF_METRIC if key in labels}
    for split, dataset in datasets_of(cfg):
        evaluators = cfg.get(f"{split}_evaluator") if split in SPLITS else None
        if not evaluators:
            continue
        listed = [evaluators] if isinstance(evaluators, Mapping) else list(evaluators)
        metric = {"type": METRIC, "ann_file": annotation_file(dataset), **options}
        files = (dict(labels.get(name) or {}).get("ann_file") for name in dict.fromkeys((split, "val")))
        if file := next(filter(None, files), None):
            metric["labels_file"] = str(file)
        # The copy of a config in a run folder has one already, which is replaced, so that options take effect.
        cfg[f"{split}_evaluator"] = [*(other for other in listed if other.get("type") != METRIC), metric]
