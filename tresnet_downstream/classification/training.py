"""Training and scoring of classifiers, with several labels per image or one, from a config."""

import copy
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from tresnet_downstream import interrupts
from tresnet_downstream.classification.class_balance import ClassBalance
from tresnet_downstream.classification.data_summary import pipeline_text, size_text
from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.classification.description_merge import merge_description
from tresnet_downstream.classification.descriptions import describe_training, read_description
from tresnet_downstream.classification.explain import explanation_method
from tresnet_downstream.classification.explained_mistakes import with_explanations
from tresnet_downstream.classification.losses import REDUCTIONS
from tresnet_downstream.classification.metrics import MultilabelMetric, TaskMetric, task_metric
from tresnet_downstream.classification.split_data import build_datasets, summaries, take_split, tell_shared_images
from tresnet_downstream.classification.tasks import MULTI_LABEL, SINGLE_LABEL, Task, task_of
from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.evaluation.frequency_groups import (
    TrainingCounts,
    frequency_groups,
    group_scores,
    require_cutoffs,
)
from tresnet_downstream.evaluation.multilabel_scores import MultilabelScores
from tresnet_downstream.evaluation.outcomes import MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.runs import LEFT_OUT
from tresnet_downstream.interfaces import LabelledImages
from tresnet_downstream.notices import tell
from tresnet_downstream.running import folders
from tresnet_downstream.running.checkpoints import (
    CheckpointHook,
    bare,
    plain,
)
from tresnet_downstream.running.config_checks import check_config, mistakes_in_types
from tresnet_downstream.running.early_stopping import BestScore
from tresnet_downstream.running.left_out import left_out_of
from tresnet_downstream.running.provenance import provenance
from tresnet_downstream.running.ready_model import ReadyModel
from tresnet_downstream.running.resume_point import checkpoint_to_resume
from tresnet_downstream.running.runner import QuietRunner, close, join_processes, set_launcher
from tresnet_downstream.running.unreadable import UnreadableImagesHook  # noqa: F401 - registers it
from tresnet_downstream.weights import load_pretrained, read_checkpoint, unwrap
from tresnet_downstream.weights.pretrained import require_match
from tresnet_downstream.weights.reading import class_names

# Stored in runs that were scored with test-time augmentation.
TTA = "mean of the probabilities of each image and its mirror image"


@interrupts.remembered()
@mistakes_in_types()
def train_classifier(
    config: Config, resume: bool = False, launcher: str = "none", overwrite: bool = False
) -> dict[str, float | str]:
    """Trains and validates a classifier, with several labels per image, or one if ``model.multi_label`` is False.

    Checkpoints, logs and TensorBoard scalars are written to ``config.work_dir``.

    Args:
        config: the result of :func:`load_config`, with ``work_dir``.
        resume: whether to resume from the newest checkpoint in ``work_dir``, if there is one.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.
        overwrite: whether a run in ``work_dir`` is moved aside. If both this and ``resume`` are False, a folder with a
            run is refused.

    Returns:
        The best validation score: ``mAP`` or ``top1``, ``weights`` (``raw`` or ``averaged``) and ``epoch``. ``weights``
        and ``epoch`` are missing if nothing was scored.

    Raises:
        UserError: if the data, the config or a checkpoint is invalid, or the loss is not finite.
    """
    join_processes(launcher)
    checkpoint = checkpoint_to_resume(config.work_dir, resume, overwrite)
    config.overwrite = overwrite
    check_config(config, ("train", "val"))
    # Loaded below, not by MMEngine, which would also load it when a run is resumed, and reports it only in its log.
    init_cfg = config.model.backbone.pop("init_cfg", None)
    runner = _build_runner(config, launcher, checkpoint, train=True)
    if checkpoint is None:
        head = copy.deepcopy(bare(runner.model).head.state_dict()) if config.get("initial_bias") else {}
        _start_from(runner, config, init_cfg)
        runner.class_balance.set_bias(bare(runner.model), config, head)
    try:
        runner.train()
    except NonFiniteLossError as error:
        last = folders.last_checkpoint(config.work_dir)
        advice = f"the last good checkpoint is {last}" if last else "no checkpoint was written before"
        raise NonFiniteLossError(f"{error}; {advice}; amp=None may help, or a new run with a lower max_lr") from error
    finally:
        close(runner)
    best: dict[str, float | str] = next(hook.best for hook in runner.hooks if isinstance(hook, CheckpointHook))
    return best


def best_score(config: Config, best: Mapping[str, Any]) -> BestScore | None:
    """The score of the best epoch in the result of :func:`train_classifier`; None if nothing was scored."""
    if "epoch" not in best:
        return None
    checkpoint = _with_best(config.default_hooks, task_of(config))["checkpoint"]
    name = checkpoint["save_best"]
    value = best[name] if name in best else best[f"{best['weights']}/{name}"]
    return BestScore(name, float(value), -1 if checkpoint.get("rule") == "less" else 1)


@interrupts.remembered()
@mistakes_in_types()
def score_classifier(
    config: Config,
    checkpoint_path: str | Path,
    weights: str | None = None,
    launcher: str = "none",
    set_here: Set[str] = frozenset(),
    explain: bool = False,
    tta: bool = False,
    ready: ReadyModel | None = None,
    split: str = "val",
) -> tuple[Any, MultilabelRun | SingleLabelRun] | None:
    """Scores a checkpoint on the validation or test data of a config.

    The model and the pipeline are those of the checkpoint if it describes them. A line reports differences from the
    config.

    Args:
        config: the result of :func:`load_config`, with ``work_dir``.
        checkpoint_path: a checkpoint of this toolkit.
        weights: ``raw`` or ``averaged``; None takes those with the better validation score.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.
        set_here: keys of the config that take precedence over the checkpoint, from :func:`places_set_by`.
        explain: whether the run gets maps of the worst mistakes, see :mod:`explain`.
        tta: whether the mean of the probabilities of each image and its mirror image is scored. The run stores this.
        ready: a model that needs no checkpoint, such as an exported one; None for a checkpoint.
        split: ``val``, or ``test`` for ``test_annotations`` and ``test_images``. The run stores this.

    Returns:
        The scores (:class:`MultilabelScores` or :class:`SingleLabelScores`) and the run, for :func:`write_scored`;
        None in all processes but the first.

    Raises:
        UserError: if data, config and checkpoint do not fit each other.
    """
    join_processes(launcher)
    if ready is not None and (explain or tta):
        what = "explain" if explain else "tta"
        raise UserError(f"{checkpoint_path}: is exported, but `{what}` is for checkpoints; leave it out")
    set_here = take_split(config, split, set_here)
    require_cutoffs(config.get("frequency_cutoffs"))
    training = None
    if ready is None:
        name, runner, training = _runner_of_checkpoint(config, checkpoint_path, weights, launcher, set_here, split)
    else:
        name, runner = "exported", _runner_of_ready(config, ready, launcher, weights, set_here, checkpoint_path, split)
    if explain:  # raises an error before scoring if something is missing
        explanation_method(bare(runner.model).eval())
    if tta:
        bare(runner.model).tta = True
    try:
        scores = runner.val()
    finally:
        close(runner)
    metric = task_metric(runner.val_evaluator.metrics, task_of(config).metric)
    if not is_main_process():
        return None
    outcome = _outcome(config, checkpoint_path, name, runner.val_dataloader.dataset, metric, scores)
    about = {**outcome.about, "split": split, **({"tta": TTA} if tta else {})}
    outcome = replace(outcome, about=about, training=training)
    if explain:
        pipeline = config.val_dataloader.dataset.get("pipeline", ())
        outcome = with_explanations(outcome, bare(runner.model).eval(), pipeline)
    scored = metric.scores["raw"]
    of_classes = scored.ap if isinstance(scored, MultilabelScores) else scored.recall
    groups = frequency_groups(training, outcome.classes)
    return replace(scored, by_frequency=group_scores(groups, of_classes)), outcome


def _runner_of_checkpoint(
    config: Config,
    checkpoint_path: str | Path,
    weights: str | None,
    launcher: str,
    set_here: Set[str],
    split: str,
) -> tuple[str, Runner, TrainingCounts | None]:
    """The name of the chosen weights, a runner with these weights, and the counts of the training data."""
    checkpoint = read_checkpoint(checkpoint_path)
    name, state_dict = unwrap(checkpoint, weights, checkpoint_path)
    classes = class_names(checkpoint, checkpoint_path)
    check_config(config, (split,))
    description = read_description(Path(checkpoint_path), checkpoint)
    notes = merge_description(config, description, set_here)
    if notes and is_main_process():
        print("\n".join(notes))
    runner = _build_runner(config, launcher, None, train=False, classes=classes, split=split)
    require_match(bare(runner.model), state_dict, checkpoint_path)
    bare(runner.model).load_state_dict(state_dict)
    return name, runner, _with_cutoffs(description.training, config, set_here)


def _with_cutoffs(training: TrainingCounts | None, config: Config, set_here: Set[str]) -> TrainingCounts | None:
    """The counts in a checkpoint, with the cutoffs of the config if it has some, or if an option sets them."""
    cutoffs = config.get("frequency_cutoffs")
    if training is None or (cutoffs is None and "frequency_cutoffs" not in set_here):
        return training
    return replace(training, cutoffs=None if cutoffs is None else (cutoffs[0], cutoffs[1]))


def _runner_of_ready(
    config: Config,
    ready: ReadyModel,
    launcher: str,
    weights: str | None,
    set_here: Set[str],
    path: str | Path,
    split: str,
) -> Runner:
    """A runner with a model that needs no checkpoint."""
    if weights is not None:
        raise UserError(f"`weights` {weights}: {path} has one set of weights; leave it out")
    check_config(config, (split,))
    ready.require_untouched(set_here, path)
    if bool(config.model.get("multi_label", True)) != ready.config["multi_label"]:
        task = MULTI_LABEL if ready.config["multi_label"] else SINGLE_LABEL
        raise UserError(f"{path}: is a classifier with {task.name}, but the config has {task.other}")
    config.model = dict(ready.config)
    config.val_dataloader.dataset.pipeline = list(ready.pipeline)
    return _build_runner(config, launcher, None, train=False, classes=ready.classes, split=split)


def _outcome(
    config: Config,
    checkpoint_path: str | Path,
    weights: str,
    dataset: LabelledImages,
    metric: TaskMetric,
    scores: Mapping[str, object],
) -> MultilabelRun | SingleLabelRun:
    """The scored run, for a run folder."""
    common: dict[str, Any] = {
        "probabilities": metric.probabilities["raw"],
        "images": metric.images,
        "classes": dataset.classes,
        "image_folder": dataset.image_folder,
        "about": provenance(config, checkpoint_path, dataset.annotation_file, weights)
        | _data(config, dataset, metric)
        | _further_scores(scores, metric),
        "left_out": left_out_of(dataset) | metric.unreadable,
    }
    if isinstance(metric, MultilabelMetric):
        return MultilabelRun(targets=metric.targets, threshold=metric.threshold, top_k=metric.top_k, **common)
    return SingleLabelRun(labels=metric.targets, **common)


def _build_runner(
    config: Config,
    launcher: str,
    resume_from: Path | None,
    train: bool,
    classes: Sequence[str] | None = None,
    split: str = "val",
) -> Runner:
    check_config(config, ("train", "val") if train else (split,))
    init_default_scope(config.default_scope)
    datasets = build_datasets(config, train, classes, split)
    task = task_of(config)
    if train and not task.multi_label:
        _require_several_classes(datasets["train"].classes)
    config.model.classes = list(datasets["val"].classes)
    seed = config.randomness.seed
    loaders = {
        split: Runner.build_dataloader(_loader_config(config, split, dataset), seed=seed)
        for split, dataset in datasets.items()
    }
    balance = ClassBalance.of(config, datasets["train"]) if train else None
    evaluator = Evaluator(config.val_evaluator)
    task_metric(evaluator.metrics, task.metric)  # raises if there is none
    set_launcher(config, launcher)
    folders.make(config.work_dir)
    runner = QuietRunner(
        model=config.model if balance is None else balance.weighted(config.model),
        work_dir=config.work_dir,
        train_dataloader=loaders.get("train"),
        train_cfg=config.train_cfg if train else None,
        optim_wrapper=config.optim_wrapper if train else None,
        param_scheduler=config.param_scheduler if train else None,
        val_dataloader=loaders["val"],
        val_cfg=config.val_cfg,
        val_evaluator=evaluator,
        default_hooks=_with_best(config.default_hooks, task) if train else config.default_hooks,
        custom_hooks=[*config.custom_hooks, {"type": "UnreadableImagesHook"}] if train else [{"type": "ProgressHook"}],
        load_from=None if resume_from is None else str(resume_from),
        resume=resume_from is not None,
        launcher=launcher,
        env_cfg=config.env_cfg,
        log_level=config.log_level,
        visualizer=config.visualizer,
        default_scope=config.default_scope,
        randomness=config.randomness,
        cfg=config,
    )
    for line in summaries(config, datasets, train, split):
        tell(line)
    if is_main_process():
        tell_shared_images(config, datasets, train, split)
    if balance is not None:
        for line in balance.notices(loaders["train"]):
            tell(line)
        runner.class_balance = balance
        runner.data_settings = balance.settings()
        runner.optim_wrapper["reduction"] = _reduction(bare(runner.model).loss, task)
        runner.description = {
            **describe_training(config, len(datasets["val"].classes)),
            "training": balance.description(loaders["train"]),
        }
    return runner


def _require_several_classes(classes: Sequence[str]) -> None:
    """Raises UserError for a single class, whose softmax is always 1, so that the network could not learn."""
    if len(classes) == 1:
        raise UserError(
            f"train_dataloader.dataset: has only the class {classes[0]!r}, but with one label per image there must be "
            "several; add images of another class"
        )


def _with_best(hooks: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """The hooks, with the score of the task as ``save_best`` of the checkpoint hook unless the config sets it."""
    if not hooks.get("checkpoint"):
        raise UserError(
            "default_hooks.checkpoint: is not set, but training needs it; default_hooks.checkpoint.interval=N writes "
            "fewer checkpoints"
        )
    return {**hooks, "checkpoint": {"save_best": task.metric.keys[0], **hooks["checkpoint"]}}


def _reduction(loss: nn.Module | None, task: Task) -> str:
    """The reduction of a loss: ``sum`` or ``mean``. If the loss has no such attribute, a message says so."""
    if loss is None:
        raise UserError(f"model.loss: is not set, but training needs one, such as dict(type='{task.losses[0]}')")
    if isinstance(loss, task.other_loss):
        raise UserError(
            f"model.loss: {type(loss).__name__} is for {task.other}, but this training has {task.name}; choose "
            f"{' or '.join(task.losses)}, or set model.multi_label={not task.multi_label}"
        )
    reduction = getattr(loss, "reduction", None)
    if reduction is None:
        tell(f"note: {type(loss).__name__} has no attribute `reduction`, so it is assumed to be a mean over the batch")
        return "mean"
    if reduction not in REDUCTIONS:
        raise UserError(f"model.loss: its reduction is {reduction!r}, but training needs {' or '.join(REDUCTIONS)}")
    return str(reduction)


def _further_scores(scores: Mapping[str, object], metric: TaskMetric) -> dict[str, object]:
    """The scores of metrics other than the task's, as plain data."""
    further = {name.removeprefix("raw/"): plain(value) for name, value in scores.items()}
    further = {name: value for name, value in further.items() if name not in (*metric.keys, "weights")}
    return {"metrics": further} if further else {}


def _data(config: Config, dataset: object, metric: TaskMetric) -> dict[str, object]:
    """The scored data, as plain data: images used and left out with the reasons, image size, pipeline."""
    if not isinstance(dataset, MultiLabelDataset):
        return {}
    annotations = dataset.annotations
    return {
        "images": {
            "listed": len(annotations) + annotations.num_unlabelled,
            "scored": len(metric.images),
            "without label, left out": annotations.num_unlabelled,
            "unreadable, left out": len(metric.unreadable),
        },
        "unreadable": metric.unreadable,
        **({"left_out": f"in {LEFT_OUT} of the run folder"} if annotations.num_unlabelled or metric.unreadable else {}),
        "image_size": size_text(dataset),
        "pipeline": pipeline_text(config.val_dataloader.dataset.get("pipeline", ())),
    }


def _loader_config(config: Config, split: str, dataset: object) -> dict[str, object]:
    loader = dict(config[f"{split}_dataloader"])
    if loader["num_workers"] == 0:
        loader["persistent_workers"] = False
    return {**loader, "dataset": dataset, "pin_memory": torch.cuda.is_available()}


def _start_from(runner: Runner, config: Config, init_cfg: Any) -> None:
    """Loads the weights that training starts from, of the backbone or the classifier, and prints which."""
    model, notes = bare(runner.model), []
    if init_cfg and (not isinstance(init_cfg, Mapping) or init_cfg.get("type") != "Pretrained"):
        raise UserError("model.backbone.init_cfg: give dict(type='Pretrained', checkpoint=...) or None")
    if init_cfg and init_cfg.get("checkpoint"):
        with _advice("pretrained=None starts from random weights"):
            notes.append(load_pretrained(model.backbone, init_cfg["checkpoint"], init_cfg.get("prefix") or ""))
    if config.get("load_from"):
        with _advice("load_from=None loads no checkpoint"):
            notes.append(load_pretrained(model, config.load_from))
    if not notes and "pretrained" in config:
        notes.append("note: pretrained is not set: training starts from random weights, unlike published trainings")
    if notes and is_main_process():
        print("\n".join(notes))


@contextmanager
def _advice(text: str) -> Iterator[None]:
    """Inside, a UserError ends with ``text``."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {text}") from error
