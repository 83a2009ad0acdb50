"""Object detection with MMDetection: from a config to a running training, or to the scores of a checkpoint."""

import copy
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import join_path
from mmengine.hooks import CheckpointHook as EpochCheckpointHook
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn

from tresnet_downstream.coco_files import read_coco_classes
from tresnet_downstream.detection import metrics
from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.evaluation import DetectionRun, DetectionScores
from tresnet_downstream.files import whole_file
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS, RUNNERS, SCOPE
from tresnet_downstream.running import folders
from tresnet_downstream.running.checkpoints import (
    bare,
    plain,
    require_classes,
    require_resumable,
)
from tresnet_downstream.running.config import mistakes_in_types
from tresnet_downstream.running.folders import last_checkpoint
from tresnet_downstream.running.hooks import ProgressHook
from tresnet_downstream.running.provenance import provenance, without_start
from tresnet_downstream.running.runner import FolderRunner, QuietRunner, close, join_processes, set_launcher
from tresnet_downstream.weights.download import locate
from tresnet_downstream.weights.pretrained import require_match
from tresnet_downstream.weights.reading import read_checkpoint, unwrap

# What checks more than MMDetection's CocoDataset and CocoMetric, and stands in their place.
OUR_DATA, OUR_METRIC = f"{SCOPE}.CocoBoxes", f"{SCOPE}.DetectionMetric"
SPLITS = ("train", "val", "test")
# The file in the work dir that says which epoch was validated last, with what MMEngine knows of the best one.
LAST_VALIDATION = "last_validation.json"
BEST = ("best_score", "best_ckpt")


@RUNNERS.register_module()
class DetectionRunner(FolderRunner):
    """MMEngine's runner for configs of MMDetection, as their ``runner_type``; MMDetection's own tools take it too.

    What it adds to a config of MMDetection:

    * a ``data_root`` set on the command line reaches every data set that still has the config's own, and the
      metrics read the annotation file of the data they score;
    * COCO data sets and metrics are built in their checked form (:class:`CocoBoxes`, :class:`DetectionMetric`);
      ``coco_eval`` names what computes the scores;
    * classes come from the training data, and every head's ``num_classes`` follows them;
    * ``amp`` (``bfloat16`` or ``float16``) works on a CPU as well;
    * checkpoints are whole files of plain data, and are refused if they hold another detector or other classes;
    * each run of a process has a visualizer of its own;
    * a training overwrites no run, see :class:`FolderRunner`: ``overwrite=True`` moves the one in its folder aside.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Builds a runner from a whole config."""
        cfg = copy.deepcopy(cfg)
        init_default_scope(cfg.get("default_scope", "mmdet"))
        _follow_options(cfg)
        _check_components(cfg)
        _set_classes(cfg)
        folders.make(cfg.work_dir)
        if cfg.get("amp") and cfg.get("optim_wrapper"):
            cfg.optim_wrapper.update(type=f"{SCOPE}.RecipeOptimWrapper", amp=cfg.amp, reduction="mean")
        return super().from_cfg(cfg)

    def build_visualizer(self, visualizer: Visualizer | dict[str, Any] | None = None) -> Visualizer:
        """Builds one that writes into this run's folder.

        MMDetection's configs give them all one name, and under the name of one that is there MMEngine gives that one
        again, which writes into the folder of the run before.
        """
        if isinstance(visualizer, dict):
            visualizer = {**visualizer, "name": str(self._log_dir)}
        return super().build_visualizer(visualizer)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resumes a checkpoint; its best one is sought in this folder, also if that was moved since."""
        super().resume(filename, *args, **kwargs)
        for key in ("best_ckpt", "last_ckpt"):
            if path := self.message_hub.runtime_info.get(key):
                self.message_hub.update_info(key, str(Path(self.work_dir) / Path(path).name))

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Saves a checkpoint that appears under its name only when it is complete.

        Raises:
            NonFiniteLossError: if a weight is NaN or infinite.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in bare(self.model).parameters()):
            raise NonFiniteLossError(f"weights are not finite after epoch {self.epoch + 1}")
        if "://" in str(out_dir):  # a store that takes whole objects
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif is_main_process():
            with whole_file(Path(out_dir) / filename) as partial:
                super().save_checkpoint(out_dir, partial.name, *args, **kwargs)


@RUNNERS.register_module()
class QuietDetectionRunner(QuietRunner, DetectionRunner):
    """The same, with the terminal left to a progress bar."""


@HOOKS.register_module()
class DetectionCheckpointHook(Hook):
    """Leaves checkpoints that hold plain data alone, and refuses those of another detector.

    MMEngine's log history is not kept: it is made of objects that safe loading refuses, and nothing resumes it
    but the smoothing of what the log shows.
    """

    priority = "LOWEST"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Turns numpy's numbers into plain ones and describes the detector for :func:`load_detector`."""
        hub = checkpoint["message_hub"]
        kept = {key: value for key, value in hub["resumed_keys"].items() if key in hub["runtime_info"]}
        checkpoint["message_hub"] = {**hub, "log_scalars": {}, "resumed_keys": kept}
        checkpoint["meta"]["model"] = {
            "detector": describe_detector(runner.cfg.model),
            "pipeline": next((given["pipeline"] for split, given in _datasets_of(runner.cfg) if split != "train"), []),
        }
        checkpoint.update({key: plain(value) for key, value in checkpoint.items() if key != "state_dict"})

    def before_train(self, runner: Runner) -> None:
        """Validates the epoch whose validation was cut, where a training is resumed from its checkpoint."""
        loop = runner.train_loop
        if not runner._resume and is_main_process():
            (Path(runner.work_dir) / LAST_VALIDATION).unlink(missing_ok=True)  # of another run in this folder
        if not runner._resume or not isinstance(loop, EpochBasedTrainLoop) or runner.val_loop is None:
            return
        loop._decide_current_val_interval()
        due = loop.epoch >= loop.val_begin and (loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs)
        # The first process decides: the others may see another disk.
        decision = [due and loop.epoch > 0 and _last_validation(runner.work_dir).get("epoch") != loop.epoch]
        broadcast_object_list(decision)
        if decision[0]:
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Notes which epoch was validated and the best so far: its checkpoint was written before."""
        if not isinstance(runner._train_loop, EpochBasedTrainLoop) or not is_main_process():
            return
        info = runner.message_hub.runtime_info
        best = {key: plain(info[key]) for key in BEST if key in info}
        with whole_file(Path(runner.work_dir) / LAST_VALIDATION) as partial:
            partial.write_text(json.dumps({"epoch": runner.epoch, **best}))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Checks names, shapes and classes; a training that starts from a detector may have other heads."""
        checkpoint.get("meta", {}).pop("config", None)  # MMEngine would run it
        last = _last_validation(runner.work_dir)
        if runner._resume and last and last.get("epoch") == checkpoint.get("meta", {}).get("epoch"):
            hub, best = checkpoint["message_hub"], {key: last[key] for key in BEST if key in last}
            hub["runtime_info"].update(best)
            hub["resumed_keys"].update(dict.fromkeys(best, True))
        model, path = _detector(runner.model), runner._load_from or last_checkpoint(runner.work_dir) or "checkpoint"
        weights = unwrap(checkpoint, "raw", path)[1]
        # Until a training begins, the loop is a config.
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            _keep_what_fits(model, checkpoint, weights, path)
            return
        require_match(model, weights, path)
        for _, dataset in _datasets_of(runner.cfg):
            if "classes" in (dataset.get("metainfo") or {}):
                require_classes(checkpoint, dataset.metainfo["classes"], path)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a training whose loss is not finite.

    Args:
        interval: steps between looks, each of which waits for the device.
    """

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Looks at the loss."""
        if not self.every_n_train_iters(runner, self.interval) or torch.as_tensor(outputs["loss"]).isfinite():
            return
        last = last_checkpoint(runner.work_dir)
        kept = f"the last checkpoint is {last}" if last else "no checkpoint was written before"
        raise NonFiniteLossError(
            f"the loss is not finite in epoch {runner.epoch + 1}, step {batch_idx + 1}; {kept}; "
            "a lower optim_wrapper.optimizer.lr or optim_wrapper.clip_grad.max_norm=35 may help"
        )


@HOOKS.register_module()
class DetectionProgressHook(ProgressHook):
    """A bar on a terminal, and one line for each epoch with the loss and AP."""

    # Before the checkpoints' hook, which may validate at once.
    priority = "VERY_LOW"
    loss_name, loss_key = "loss", "loss"

    def __init__(self) -> None:
        super().__init__()
        self.last_ap: float | None = None

    def before_train(self, runner: Runner) -> None:
        """Shows the bar, and expects that an epoch may be validated that this process has not trained."""
        super().before_train(runner)
        self.started, self.losses, self.images, self.skipped = time.perf_counter(), 0.0, 0, 0

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Prints the epoch's line."""
        super().after_val_epoch(runner, metrics)
        if metrics and "coco/bbox_mAP" in metrics:
            self.last_ap = 100 * float(metrics["coco/bbox_mAP"])

    def scores_text(self, metrics: Mapping[str, Any]) -> str:
        """AP in percent, of boxes and of masks."""
        found = [
            f"{name} {100 * metrics[key]:.2f}"
            for kind, suffix in (("bbox", ""), ("segm", " of masks"))
            for name, key in ((f"AP{suffix}", f"coco/{kind}_mAP"), (f"AP50{suffix}", f"coco/{kind}_mAP_50"))
            if metrics.get(key, -1) >= 0
        ]
        return f"val {', '.join(found)}" if found else ""


@mistakes_in_types()
def train_detection(
    config: Config, resume: bool = False, launcher: str = "none", overwrite: bool = False
) -> dict[str, Any]:
    """Trains a detector; checkpoints and logs go to ``config.work_dir``.

    Args:
        config: of MMDetection, from :func:`load_config`, with ``work_dir``.
        resume: goes on from the newest checkpoint in ``work_dir``, if there is one.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.
        overwrite: moves a run that ``work_dir`` holds aside; without, and without ``resume``, it is refused.

    Returns:
        ``AP`` in percent and the path ``checkpoint`` of the best epoch; where the config keeps no best one
        (``save_best``), ``last_AP`` of the last epoch that was scored; empty if none was.

    Raises:
        UserError: for what is wrong with the data, the config or a checkpoint, and for a loss that is not finite.
    """
    overwrite = overwrite or bool(config.get("overwrite"))
    checkpoint = folders.checkpoint_to_resume(config.work_dir, resume, overwrite)
    config.overwrite = overwrite
    if checkpoint is not None:
        require_resumable(checkpoint)
        config.load_from, config.resume = str(checkpoint), True
    runner = _quiet_runner(config, launcher)
    try:
        runner.train()
    finally:
        close(runner)
    hook = next((hook for hook in runner.hooks if isinstance(hook, EpochCheckpointHook)), None)
    best = getattr(hook, "best_ckpt_path", None)
    score = runner.message_hub.get_info("best_score") if best else None
    if score is not None and score >= 0:
        return {"AP": 100 * float(score), "checkpoint": best}
    last = next((hook.last_ap for hook in runner.hooks if isinstance(hook, DetectionProgressHook)), None)
    return {} if last is None or last < 0 else {"last_AP": last}


@mistakes_in_types()
def score_detection(
    config: Config, checkpoint_path: str | Path, launcher: str = "none"
) -> tuple[dict[str, DetectionScores], DetectionRun] | None:
    """Scores a detector on the test data of a config, which in most configs is the validation data.

    Args:
        config: of MMDetection, from :func:`load_config`, with ``work_dir``.
        checkpoint_path: a path or URL of a checkpoint of a detector.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.

    Returns:
        the scores by kind, ``bbox`` or ``segm``, and the run for :func:`write_detection_run`; None in all processes
        but the first.

    Raises:
        UserError: if data, config and checkpoint do not fit together.
    """
    checkpoint_path = locate(checkpoint_path)
    checkpoint = read_checkpoint(checkpoint_path)
    classes = checkpoint.get("meta", {}).get("dataset_meta", {}).get("classes")
    _follow_options(config)  # before anything here changes what the options are told by
    for _, dataset in _datasets_of(config):
        if classes and not dataset.get("metainfo"):
            dataset.metainfo = {"classes": tuple(classes)}
    config.load_from, config.resume = str(checkpoint_path), False
    runner = _quiet_runner(config, launcher)
    try:
        runner.test()
    finally:
        close(runner)
    metric = next((m for m in runner.test_evaluator.metrics if isinstance(m, metrics.DetectionMetric)), None)
    if metric is None:
        raise UserError("test_evaluator: has no CocoMetric of boxes or masks; mim test mmdet scores with other metrics")
    if not is_main_process():
        return None
    dataset = next(dataset for split, dataset in _datasets_of(config) if split == "test")
    run = DetectionRun(
        ground_truth=metric.ground_truth,
        predictions=metric.predictions,
        image_ids=metric.image_ids,
        classes=tuple(metric.dataset_meta["classes"]),
        image_folder=_image_folder(dataset),
        backend=metric.backend,
        about=provenance(config, checkpoint_path, _annotation_file(dataset)),
    )
    return metric.scores, run


def _last_validation(work_dir: str | Path) -> dict[str, Any]:
    """What the work dir says of the last validation; nothing if there was none, or the file is damaged."""
    try:
        content = json.loads((Path(work_dir) / LAST_VALIDATION).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def describe_detector(model: Any) -> dict[str, Any]:
    """The config of a detector as plain data, without the weights that it, or its teacher, would start from."""
    # LAD's teacher is part of its weights.
    return {key: value for key, value in without_start(model).items() if key != "teacher_ckpt"}


def _detector(model: nn.Module) -> nn.Module:
    """The detector itself, without what several processes or test-time augmentation put around it."""
    inner = bare(model)
    return inner.module if isinstance(inner, BaseTTAModel) else inner


def _keep_what_fits(model: nn.Module, checkpoint: dict[str, Any], weights: Mapping[str, Any], path: str | Path) -> None:
    """Leaves the weights of other shapes out, such as those of heads for other classes, and says which."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    fitting = {name: tensor for name, tensor in weights.items() if wanted.get(name) == tensor.shape}
    if not any(name.startswith("backbone.") for name in fitting):
        raise UserError(
            f"{path}: is a checkpoint of another detector: no weight of its backbone fits; a backbone's own weights "
            "are named by model.backbone.init_cfg.checkpoint"
        )
    checkpoint["state_dict"] = fitting
    if fresh := [name for name in wanted if name not in fitting]:
        tell(f"{path}: {len(fresh)} weights start fresh, such as {fresh[0]}")


def _quiet_runner(config: Config, launcher: str) -> Runner:
    if config.get("default_scope") == SCOPE:
        raise UserError(f"{config.filename}: is a classifier's config, for train_multilabel.py and test_multilabel.py")
    join_processes(launcher)
    set_launcher(config, launcher)
    bar, hooks = {"type": f"{SCOPE}.DetectionProgressHook"}, config.get("custom_hooks") or []
    config.custom_hooks = [*(hook for hook in hooks if hook != bar), bar]
    return QuietDetectionRunner.from_cfg(config)


def _datasets_of(cfg: Config) -> Iterator[tuple[str, Any]]:
    """The data sets of each split that read an annotation file, also those within wrappers, such as RepeatDataset."""
    for split in SPLITS:
        loader = cfg.get(f"{split}_dataloader")
        if isinstance(loader, Mapping):
            yield from ((split, dataset) for dataset in _leaves(loader.get("dataset")))


def _leaves(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, list | tuple):
        for item in dataset:
            yield from _leaves(item)
    elif isinstance(dataset, Mapping):
        if "ann_file" in dataset:
            yield dataset
        for key in ("dataset", "datasets"):
            yield from _leaves(dataset.get(key))


def _follow_options(cfg: Config) -> None:
    """Takes ``data_root``, the test data and the evaluators' files along with what was set on the command line."""
    written = Config.fromfile(cfg.filename) if cfg.filename and Path(cfg.filename).is_file() else cfg
    for part in ("dataloader", "evaluator"):
        val, test = f"val_{part}", f"test_{part}"
        if val in cfg and cfg.get(test) == written.get(test) == written.get(val):
            cfg[test] = copy.deepcopy(cfg[val])
    for split, dataset in _datasets_of(cfg):
        if cfg.get("data_root") and dataset.get("data_root") == written.get("data_root"):
            dataset.data_root = cfg.data_root
        before = _listed(written.get(f"{split}_evaluator") or [])
        for evaluator, original in zip(_listed(cfg.get(f"{split}_evaluator") or []), before, strict=False):
            if "ann_file" in evaluator and evaluator.ann_file == original.get("ann_file"):
                evaluator.ann_file = _annotation_file(dataset)


def _annotation_file(dataset: Any) -> str:
    return _below_root(dataset, dataset.ann_file)


def _image_folder(dataset: Any) -> str:
    return _below_root(dataset, (dataset.get("data_prefix") or {}).get("img", ""))


def _below_root(dataset: Any, path: str) -> str:
    if not dataset.get("data_root") or Path(path).is_absolute():
        return str(path)
    return str(join_path(dataset.data_root, path))


def _listed(one_or_more: Any) -> list[Any]:
    return [one_or_more] if isinstance(one_or_more, Mapping | str) else list(one_or_more)


def _check_components(cfg: Config) -> None:
    """Puts our data set and metric in the place of MMDetection's; the metric where our data gives the labels."""
    for split in SPLITS:
        if (cfg.get(f"{split}_dataloader") or {}).get("num_workers") == 0:
            cfg[f"{split}_dataloader"].persistent_workers = False
    for split, dataset in _datasets_of(cfg):
        if _plain_name(dataset) == "CocoDataset":
            dataset.type = OUR_DATA
        for evaluator in _listed(cfg.get(f"{split}_evaluator") or []):
            # MMDetection's scores region proposals too, which ours does not.
            boxes = set(_listed(evaluator.get("metric", "bbox"))) <= {"bbox", "segm"}
            if dataset.type == OUR_DATA and _plain_name(evaluator) == "CocoMetric" and boxes:
                evaluator.type = OUR_METRIC
                evaluator.setdefault("ann_file", _annotation_file(dataset))
            if evaluator.type == OUR_METRIC:
                evaluator.setdefault("backend", cfg.get("coco_eval", "pycocotools"))


def _plain_name(component: Any) -> str:
    return str(component.type).removeprefix("mmdet.")


def _set_classes(cfg: Config) -> None:
    """Gives every data set and head the classes that the config names, or else those of the training data."""
    given = [dataset for _, dataset in _datasets_of(cfg) if dataset.type == OUR_DATA]
    classes = next(filter(None, map(_classes_of, given)), None)
    if classes is None:
        return
    for dataset in given:
        dataset.metainfo = {"classes": classes, **(dataset.get("metainfo") or {})}
    _set_num_classes(cfg.model, len(classes))


def _classes_of(dataset: Any) -> tuple[str, ...] | None:
    """Those that the config names, or else those of the file, if it is there."""
    if "classes" in (dataset.get("metainfo") or {}):
        return tuple(dataset.metainfo["classes"])
    file = Path(_annotation_file(dataset))
    return read_coco_classes(file) if file.is_file() else None


def _set_num_classes(model: Any, count: int) -> None:
    if isinstance(model, dict):
        if "num_classes" in model:
            model["num_classes"] = count
        for key, value in model.items():
            if key != "semantic_head":  # of stuff, which is no class of boxes
                _set_num_classes(value, count)
    elif isinstance(model, list | tuple):
        for item in model:
            _set_num_classes(item, count)
