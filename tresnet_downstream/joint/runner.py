"""The runner of joint models: the one of detectors, with a head of labels on the backbone."""

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
# Of a file that was exported, which is scored in the place of a checkpoint.
EXPORTED = f"{SCOPE}.ScoredDetector"
DATA, BATCHES = f"{SCOPE}.LabelledBoxes", f"{SCOPE}.AlternatingBatchSampler"
OUR_IMPORT = f"{SCOPE}.joint"
# Keys of `labels` in a config.
OF_MODEL = {"head": "label_head", "loss": "label_loss", "loss_weights": "loss_weights", "rescore": "rescore"}
OF_METRIC = ("keep_empty", "difficult", "threshold", "top_k")
OTHERS = ("start_from", "train", "val", "test")


@RUNNERS.register_module()
class JointRunner(DetectionRunner):
    """MMEngine's runner for a config of a detector with the key ``labels``, as its ``runner_type``.

    What it adds to :class:`DetectionRunner`: the config's ``model`` becomes a :class:`LabelsAndBoxes` around the
    detector, and :class:`LabelsMetric` scores the labels beside the boxes. ``labels`` has

    * ``head``, ``loss``, ``loss_weights`` and ``rescore``: see :class:`LabelsAndBoxes`;
    * ``start_from``: ``dict(labels=FILE, boxes=FILE)``, a classifier's file and a detector's that training starts from;
    * ``train``, ``val`` and ``test``: ``dict(ann_file=..., images=...)``, files of labels (COCO, table, VOC) and the
      folder of their images, where the labels are not those of the boxes; see :class:`LabelledBoxes`; without one of
      its own, ``test`` has that of ``val``;
    * ``keep_empty``, ``difficult``, ``threshold``, ``top_k``: see :class:`LabelsMetric`.
    """

    progress_hook: ClassVar[str] = "JointProgressHook"
    part_roots: ClassVar[tuple[str, ...]] = ("", "detector.")

    @classmethod
    def adjust(cls, cfg: Config) -> None:
        """Changes the config as :class:`DetectionRunner` does, and puts the head of labels beside the detector."""
        labels = dict(cfg.get("labels") or {})
        if not labels:
            raise UserError("labels: is missing; a joint model needs labels=dict(head=..., loss=...) in its config")
        if unknown := set(labels) - {*OF_MODEL, *OF_METRIC, *OTHERS}:
            raise UserError(
                f"labels.{sorted(unknown)[0]}: is no key; there are {', '.join([*OF_MODEL, *OTHERS, *OF_METRIC])}"
            )
        if detector_config(cfg) is not cfg.model:
            raise UserError("test-time augmentation is for detectors without labels; score without it")
        wrapped = cfg.model.get("type") == MODEL  # in the copy of a config that a training leaves
        _take_files_away(cfg)
        super().adjust(cfg)
        _import_again(cfg)
        _add_metrics(cfg, labels)
        if cfg.model.get("type") == EXPORTED:
            if any(value is not None for value in dict(labels.get("rescore") or {}).values()):
                raise UserError("labels.rescore: an exported file does not multiply scores of boxes; leave it out")
            return
        classes = _classes(cfg)
        if not wrapped:
            cfg.model = ConfigDict(type=MODEL, detector=cfg.model)
        cfg.model.pop("init_cfg", None)  # of the copy; `labels.start_from` says what holds now
        cfg.model.update({OF_MODEL[key]: _scoped(value) for key, value in labels.items() if key in OF_MODEL})
        cfg.model.label_head = {**cfg.model.label_head, "num_classes": len(classes)}
        start = {part: path for part, path in dict(labels.get("start_from") or {}).items() if path}
        if set(start) - set(PARTS):
            raise UserError("labels.start_from: give dict(labels=FILE, boxes=FILE), or one of them")
        if start and not cfg.get("resume"):
            for part, path in start.items():
                require_classes(f"labels.start_from.{part}: {path}", classes_of(part, path), classes)
            cfg.model.init_cfg = {"type": "Parts", **start}
        _add_files(cfg, labels)

    @property
    def detector(self) -> nn.Module:
        """The detector within."""
        inner: Any = detector_of(self.model)
        result: nn.Module = getattr(inner, "detector", inner)
        return result

    @property
    def detector_config(self) -> Any:
        """The config of the detector within."""
        return self.cfg.model.get("detector", self.cfg.model)


@RUNNERS.register_module()
class QuietJointRunner(QuietRunner, JointRunner):
    """The same, with the terminal left to a progress bar."""


@HOOKS.register_module()
class JointProgressHook(DetectionProgressHook):
    """A bar on a terminal, and one line for each epoch with the loss, AP and mAP."""

    def scores_text(self, metrics: Mapping[str, Any]) -> str:
        """AP of the boxes and mAP of the labels, in percent."""
        parts = [super().scores_text(metrics)]
        if "mAP" in metrics:
            parts.append(f"mAP of labels {metrics['mAP']:.2f}")
        return ", ".join(filter(None, parts))


def require_classes(what: str, given: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Raises UserError, which says how they differ, unless the names are the same in the same order."""
    if given != wanted:
        raise UserError(f"{what}: {class_difference(given, wanted)}; they must be the classes of the boxes")


def _scoped(part: Any) -> Any:
    """A head or a loss by its full name, under which MMDetection's registry knows it too."""
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
    raise UserError("train_dataloader.dataset: names no classes, and its annotation file is not there")


def _import_again(cfg: Config) -> None:
    imports = cfg.custom_imports["imports"]
    if OUR_IMPORT not in imports:
        cfg.custom_imports.imports = [*imports, OUR_IMPORT]


def _take_files_away(cfg: Config) -> None:
    """Undoes :func:`_add_files` in the copy of a config that a training leaves, so that options have effect."""
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


def _add_files(cfg: Config, labels: Mapping[str, Any]) -> None:
    """Gives the training data its file of labels, and the batches that such data needs."""
    files = {key: value for key, value in dict(labels.get("train") or {}).items() if value is not None}
    if not files:
        return
    for split, dataset in datasets_of(cfg):
        if split != "train":
            continue
        if dataset is not cfg.train_dataloader.dataset:
            raise UserError(
                "labels.train: images with labels and no boxes cannot be mixed with others, as "
                f"{cfg.train_dataloader.dataset.type} does; take the labels of the boxes, or another data set"
            )
        dataset.type, dataset.labels = DATA, files
    before = cfg.train_dataloader.get("batch_sampler") or {}
    cfg.train_dataloader.batch_sampler = {
        "type": BATCHES,
        "by_shape": "AspectRatio" in str(before.get("type")),
        # Torch takes it from whatever makes the batches.
        "drop_last": bool(cfg.train_dataloader.pop("drop_last", False) or before.get("drop_last", False)),
    }
    # A batch without boxes has no gradient for the neck and the head of boxes.
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
        files = (dict(labels.get(each) or {}).get("ann_file") for each in dict.fromkeys((split, "val")))
        if file := next(filter(None, files), None):
            metric["labels_file"] = str(file)
        # The copy of a config that a training leaves has one, which options must reach.
        cfg[f"{split}_evaluator"] = [*(each for each in listed if each.get("type") != METRIC), metric]
