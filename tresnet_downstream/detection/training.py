"""Training and scoring of detectors with MMDetection."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as EpochCheckpointHook
from mmengine.runner import Runner

from tresnet_downstream import interrupts
from tresnet_downstream.detection import metrics
from tresnet_downstream.detection.adjusted_config import (
    annotation_file,
    datasets_of,
    follow_options,
    image_folder,
    take_split,
)
from tresnet_downstream.detection.checkpoint_files import in_percent, title_of
from tresnet_downstream.detection.hooks import DetectionProgressHook
from tresnet_downstream.detection.runner import DetectionRunner, QuietDetectionRunner
from tresnet_downstream.detection.tta import description_of, detector_config, with_test_time_augmentation
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import DetectionRun, DetectionScores
from tresnet_downstream.evaluation.runs import LEFT_OUT
from tresnet_downstream.registry import SCOPE
from tresnet_downstream.running.early_stopping import BestScore
from tresnet_downstream.running.provenance import provenance
from tresnet_downstream.running.ready_model import ReadyModel
from tresnet_downstream.running.resume_point import checkpoint_to_resume
from tresnet_downstream.running.runner import close, join_processes, set_launcher
from tresnet_downstream.weights.public_files import locate
from tresnet_downstream.weights.reading import read_checkpoint


@interrupts.remembered()
def train_detection(
    config: Config,
    resume: bool = False,
    launcher: str = "none",
    overwrite: bool = False,
    runner_class: type[DetectionRunner] = QuietDetectionRunner,
) -> dict[str, float | str]:
    """Trains a detector; checkpoints and logs are written to ``config.work_dir``.

    Args:
        config: a config of MMDetection from :func:`load_config`, with ``work_dir``.
        resume: whether to continue from the newest checkpoint in ``work_dir``, if there is one.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.
        overwrite: whether to rename ``work_dir`` if it holds a run. Without ``overwrite`` and ``resume``, such a folder
            is refused.
        runner_class: class of the runner.

    Returns:
        ``AP``, or another score that ``save_best`` names, in percent, and ``checkpoint``, the path of the best
        checkpoint. If the config keeps no best checkpoint, ``last_AP`` of the last scored epoch; empty if no epoch was
        scored.

    Raises:
        UserError: if the data, the config or a checkpoint has a fault, or the loss is not finite.
    """
    join_processes(launcher)
    overwrite = overwrite or bool(config.get("overwrite"))
    checkpoint = checkpoint_to_resume(config.work_dir, resume, overwrite)
    config.overwrite = overwrite
    if checkpoint is not None:
        config.load_from, config.resume = str(checkpoint), True
    runner = quiet_runner(config, launcher, runner_class)
    try:
        runner.train()
    finally:
        close(runner)
    return best_of(runner)


def best_of(runner: Runner) -> dict[str, float | str]:
    """The best epoch of a training, as :func:`train_detection` returns it."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, EpochCheckpointHook)), None)
    best: str = getattr(hook, "best_ckpt_path", None) or ""
    score = runner.message_hub.get_info("best_score") if best else None
    if score is not None and score >= 0:
        key = getattr(hook, "key_indicators", ["coco/bbox_mAP"])[0]  # the config's `save_best`
        return {title_of(key): in_percent(key, score), "checkpoint": best}
    last = next((hook.last_ap for hook in runner.hooks if isinstance(hook, DetectionProgressHook)), None)
    return {} if last is None or last < 0 else {"last_AP": last}


def best_score(config: Config, best: Mapping[str, float | str]) -> BestScore | None:
    """The score in the result of :func:`train_detection`: of the best epoch or, without one, of the last scored one.

    Examples:
        >>> best_score(Config(), {"AP": 41.5, "checkpoint": "best_coco_bbox_mAP_epoch_3.pth"})
        BestScore(name='AP', value=41.5, sign=1)
    """
    name = next((key for key in best if key != "checkpoint"), None)
    if name is None:
        return None
    checkpoint = (config.get("default_hooks") or {}).get("checkpoint") or {}
    return BestScore(name, float(best[name]), -1 if checkpoint.get("rule") == "less" else 1)


@interrupts.remembered()
def score_detection(
    config: Config,
    checkpoint_path: str | Path,
    launcher: str = "none",
    tta: bool = False,
    ready: ReadyModel | None = None,
    split: str = "val",
) -> tuple[dict[str, DetectionScores], DetectionRun] | None:
    """Scores a detector on the validation or test data of a config; in most configs both are the same.

    Args:
        config: a config of MMDetection from :func:`load_config`, with ``work_dir``.
        checkpoint_path: a path or URL of a detector's checkpoint.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.
        tta: whether to use test-time augmentation, see :func:`with_test_time_augmentation`; it is recorded in the run.
        ready: a model that replaces the checkpoint, such as an exported one; it accepts images as they are.
        split: ``val`` for ``val_dataloader`` or ``test`` for ``test_dataloader``; it is recorded in the run.

    Returns:
        the scores by kind, ``bbox`` or ``segm``, and the run for :func:`write_detection_run`; None in all processes
        except the first.

    Raises:
        UserError: if data, config and checkpoint do not fit together.
    """
    runner = scored_runner(config, checkpoint_path, launcher, tta=tta, ready=ready, split=split)
    if not is_main_process():
        return None
    return detection_metric(runner).scores, outcome_of(runner, config, checkpoint_path, split)


def scored_runner(
    config: Config,
    checkpoint_path: str | Path,
    launcher: str = "none",
    runner_class: type[DetectionRunner] = QuietDetectionRunner,
    tta: bool = False,
    ready: ReadyModel | None = None,
    split: str = "val",
) -> Runner:
    """Scores a checkpoint on a split of a config's data, and returns the runner, whose metrics hold the scores.

    Raises:
        UserError: see :func:`score_detection`.
    """
    if ready is not None and tta:
        raise UserError(f"{checkpoint_path}: is exported, and `tta` is for checkpoints; leave it out")
    checkpoint_path = locate(checkpoint_path)
    if ready is None:
        classes = read_checkpoint(checkpoint_path).get("meta", {}).get("dataset_meta", {}).get("classes")
    else:
        classes = ready.classes
    follow_options(config)  # first, because it compares the config with its file
    take_split(config, split)
    for each, dataset in datasets_of(config):
        if classes and (ready is not None or not dataset.get("metainfo")):
            dataset.metainfo = {"classes": tuple(classes)}
        if ready is not None and each == "test":
            dataset.pipeline = _without_preparation(dataset.pipeline)
    config.load_from, config.resume = None if ready is not None else str(checkpoint_path), False
    if ready is not None:
        config.model = ready.config
    tested = with_test_time_augmentation(config) if tta else config
    runner = quiet_runner(tested, launcher, runner_class)
    runner.scored_split = split
    try:
        runner.test()
    finally:
        close(runner)
    return runner


def detection_metric(runner: Runner) -> metrics.DetectionMetric:
    """The :class:`DetectionMetric` of a runner that has scored.

    Raises:
        UserError: if there is none.
    """
    metric = next((m for m in runner.test_evaluator.metrics if isinstance(m, metrics.DetectionMetric)), None)
    if metric is None:
        raise UserError("test_evaluator: has no CocoMetric of boxes or masks; mim test mmdet scores with other metrics")
    return metric


def outcome_of(runner: Runner, config: Config, checkpoint_path: str | Path, split: str = "val") -> DetectionRun:
    """The run of a runner that has scored, for a run folder."""
    metric = detection_metric(runner)
    dataset = next(dataset for split, dataset in datasets_of(config) if split == "test")
    return DetectionRun(
        ground_truth=metric.ground_truth,
        predictions=metric.predictions,
        image_ids=metric.image_ids,
        classes=tuple(metric.dataset_meta["classes"]),
        image_folder=image_folder(dataset),
        backend=metric.backend,
        about=provenance(config, locate(checkpoint_path), annotation_file(dataset))
        | {"split": split}
        | _left_out(metric)
        | ({} if detector_config(runner.cfg) is runner.cfg.model else {"tta": description_of(runner.cfg)}),
        left_out=metric.unreadable,
    )


def _without_preparation(pipeline: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """A pipeline that only reads images, with the reading step of the given pipeline."""
    reading = [step for step in pipeline if str(step.get("type")).rpartition(".")[2].startswith("LoadImage")]
    return [*reading, {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape")}]


def _left_out(metric: metrics.DetectionMetric) -> dict[str, object]:
    """The numbers and reasons of unreadable images, as plain data; empty if there are none."""
    unreadable = metric.unreadable
    if not unreadable:
        return {}
    scored = len(metric.image_ids)
    counts = {"listed": scored + len(unreadable), "scored": scored, "unreadable, left out": len(unreadable)}
    return {"images": counts, "unreadable": unreadable, "left_out": f"in {LEFT_OUT} of the run folder"}


def quiet_runner(config: Config, launcher: str, runner_class: type[DetectionRunner] = QuietDetectionRunner) -> Runner:
    """Builds a runner that leaves the terminal to a progress bar.

    Raises:
        UserError: if the config is of another task or invalid.
    """
    if config.get("default_scope") == SCOPE:
        raise UserError(f"{config.filename}: is a classifier's config, not a detector's; tresnet train takes both")
    if config.get("labels") and runner_class is QuietDetectionRunner:
        raise UserError(f"{config.filename}: is a config of a joint model; tresnet train takes it")
    join_processes(launcher)
    set_launcher(config, launcher)
    bar, hooks = {"type": f"{SCOPE}.{runner_class.progress_hook}"}, config.get("custom_hooks") or []
    config.custom_hooks = [*(hook for hook in hooks if hook != bar), bar]
    return runner_class.from_cfg(config)
