"""Training and scoring of joint models, from a config."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from tresnet_downstream import interrupts
from tresnet_downstream.detection.adjusted_config import datasets_of, image_folder
from tresnet_downstream.detection.training import detection_metric, outcome_of, scored_runner, train_detection
from tresnet_downstream.evaluation import DetectionRun, DetectionScores, MultilabelRun, MultilabelScores
from tresnet_downstream.joint import data, metrics, model  # noqa: F401 - registers the parts of joint models
from tresnet_downstream.joint.metrics import LabelsMetric
from tresnet_downstream.joint.runner import QuietJointRunner
from tresnet_downstream.running.provenance import provenance
from tresnet_downstream.running.ready_model import ReadyModel
from tresnet_downstream.weights.public_files import locate


def train_joint(
    config: Config, resume: bool = False, launcher: str = "none", overwrite: bool = False
) -> dict[str, float | str]:
    """Trains a joint model. Arguments, results and errors are those of :func:`train_detection`.

    The best epoch is that with the highest AP of the boxes. With ``default_hooks.checkpoint.save_best='mAP'``, it is
    that with the highest mAP of the labels.
    """
    return train_detection(config, resume, launcher, overwrite, QuietJointRunner)


@interrupts.remembered()
def score_joint(
    config: Config,
    checkpoint_path: str | Path,
    launcher: str = "none",
    ready: ReadyModel | None = None,
    split: str = "val",
) -> tuple[tuple[MultilabelScores, MultilabelRun], tuple[dict[str, DetectionScores], DetectionRun]] | None:
    """Scores the labels and the boxes of a checkpoint on the validation or test data of a config.

    Args:
        config: the result of :func:`load_config`, with the key ``labels`` and ``work_dir``.
        checkpoint_path: path or URL of a checkpoint of a joint model.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.
        ready: a model that needs no checkpoint and prepares images itself, such as an exported one; None for a
            checkpoint.
        split: ``val`` for ``val_dataloader``, or ``test`` for ``test_dataloader``. Both runs store this.

    Returns:
        The scores and the run of the labels, and those of the boxes by kind; None in all processes but the first.

    Raises:
        UserError: if data, config and checkpoint do not fit each other.
    """
    runner = scored_runner(config, checkpoint_path, launcher, QuietJointRunner, ready=ready, split=split)
    if not is_main_process():
        return None
    metric = next(m for m in runner.test_evaluator.metrics if isinstance(m, LabelsMetric))
    dataset = next(dataset for name, dataset in datasets_of(config) if name == "test")
    of_labels = MultilabelRun(
        probabilities=metric.probabilities["raw"],
        targets=metric.targets,
        images=metric.images,
        classes=tuple(metric.dataset_meta["classes"]),
        image_folder=image_folder(dataset),
        threshold=metric.threshold,
        top_k=metric.top_k,
        about=provenance(config, locate(checkpoint_path), metric.labels_file, "raw" if ready is None else "exported")
        | {"split": split},
        left_out=metric.unreadable,
    )
    boxes = outcome_of(runner, config, checkpoint_path, split)
    return (metric.scores["raw"], of_labels), (detection_metric(runner).scores, boxes)
