"""Trackers in a training: records logged values, and sends them to each tracker."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook as EpochCheckpointHook
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import BaseVisBackend

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running import folders
from tresnet_downstream.running.checkpoints import CheckpointHook, plain
from tresnet_downstream.running.config import SET_BY_TRAINING
from tresnet_downstream.running.loops import TrainLoop
from tresnet_downstream.running.optimisation import optimizer_steps
from tresnet_downstream.running.resumed_state import Checkpoint
from tresnet_downstream.running.trackers.journal import TRAIN, VAL, Journal, Record, scalars_of
from tresnet_downstream.running.trackers.settings import TrackerSetting
from tresnet_downstream.running.trackers.tracker import (
    FAILED,
    FINISHED,
    STOPPED,
    Delivery,
    TrackedRun,
    Tracker,
    connected,
    with_reason,
)
from tresnet_downstream.weights.download import sha256_of

BACKEND = "tracker"
_STEPS: Final = "tracked_steps"
_ADVICE = "the training continues, and `resume` sends the missing values"


@HOOKS.register_module()
class TrackerHook(Hook):
    """Sends the scalars of a training, its config and its results to trackers.

    Scalars that MMEngine's hooks write to the visualizer are recorded in the run's journal first, see :mod:`.journal`.
    Every process must have this hook, but only the first one logs.

    Args:
        settings: settings of the trackers, from :func:`tracker_settings`.
    """

    # Runs before the hook that repeats an interrupted validation, so its scores are recorded.
    priority = "HIGHEST"

    def __init__(self, settings: Sequence[TrackerSetting]) -> None:
        self.settings = settings
        self.trackers: list[Tracker] = []
        self.deliveries: list[Delivery] = []
        self.journal: Journal | None = None
        self.kind = TRAIN
        self.resumed_steps: int | None = None
        self.offset = 0
        self.is_complete = False

    def connect(self, folder: str | Path) -> None:
        """Connects to the trackers before a run begins. Every process must call this.

        Raises:
            UserError: in all processes, if a tracker cannot be reached.
        """
        refusal = [""]
        if is_main_process():
            try:
                self.trackers = connected(self.settings, folder)
            except UserError as error:
                refusal = [str(error)]
        broadcast_object_list(refusal)
        if refusal[0]:
            raise UserError(refusal[0])

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Restores the number of optimiser steps, which the loop counts differently if the batch size changed."""
        meta = checkpoint.get("meta", {})
        if runner._resume:
            self.resumed_steps = meta.get(_STEPS, meta.get("step"))

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Adds the number of optimiser steps."""
        checkpoint["meta"][_STEPS] = _steps(runner, runner.iter) + self.offset

    def before_train(self, runner: Runner) -> None:
        """Opens the run at each tracker, and sends the records that it lacks."""
        if self.resumed_steps is not None:
            self.offset = self.resumed_steps - _steps(runner, runner.iter)
        refusal = [""]
        if is_main_process():
            try:
                self._open(runner)
            except UserError as error:
                refusal = [str(error)]
        broadcast_object_list(refusal)
        if refusal[0]:
            raise UserError(refusal[0])

    def _open(self, runner: Runner) -> None:
        self.journal = Journal(runner.work_dir, runner.run_id, runner.settings_digest)
        run = TrackedRun(runner.run_id, Path(runner.work_dir))
        place, step = _place(runner.train_loop, runner.iter), _steps(runner, runner.iter) + self.offset
        # Keys that describe how this process was started are not part of the run.
        left_out = {*SET_BY_TRAINING, *(["load_from"] if runner._resume else [])}
        config = {key: value for key, value in runner.cfg._cfg_dict.to_dict().items() if key not in left_out}
        self.journal.add_config(place, step, flat(plain(config)))
        for tracker in self.trackers:
            with_reason(tracker, tracker.open, run, list(self.journal.records))
            self.deliveries.append(Delivery(tracker, _ADVICE))
        runner.visualizer._vis_backends[BACKEND] = _Recorder(self, runner)

    def before_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Marks the following scalars as those of the training."""
        self.kind = TRAIN

    def before_val_epoch(self, runner: Runner) -> None:
        """Marks the following scalars as those of a validation."""
        self.kind = VAL

    def record(self, runner: Runner, scalars: Mapping[str, object]) -> None:
        """Records scalars with the position of the training, and sends the new ones."""
        assert self.journal is not None
        # Hooks are called after a batch, before the loop counts it.
        batches = runner.iter + (1 if self.kind == TRAIN else 0)
        place, step = _place(runner.train_loop, batches), _steps(runner, batches) + self.offset
        self._send(self.journal.add_scalars(self.kind, place, step, scalars_of(scalars)))

    def after_run(self, runner: Runner) -> None:
        """Records the best scores and the SHA-256 of their checkpoint, and ends the run."""
        if self.journal is None:
            return
        scalars, facts = best_results(runner)
        place, step = _place(runner.train_loop, runner.iter), _steps(runner, runner.iter) + self.offset
        self._send(self.journal.add_results(place, step, scalars, facts, {}))
        self._close(FINISHED)

    def close(self, error: BaseException | None) -> None:
        """Ends the run at the trackers if the training ended early; does nothing after a complete training."""
        self._close(FAILED if isinstance(error, Exception) else STOPPED)

    def _send(self, record: Record | None) -> None:
        if record is not None:
            for delivery in self.deliveries:
                delivery.send(record)

    def _close(self, status: str) -> None:
        deliveries, self.deliveries = self.deliveries, []
        for delivery in deliveries:
            delivery.close(status)


class _Recorder(BaseVisBackend):
    """A visualizer backend that passes scalars to the hook."""

    def __init__(self, hook: TrackerHook, runner: Runner) -> None:
        super().__init__("")
        self.hook, self.runner = hook, runner

    @property
    def experiment(self) -> Journal | None:
        return self.hook.journal

    def _init_env(self) -> None:
        pass

    def add_scalar(self, name: str, value: object, step: int = 0, **kwargs: object) -> None:
        self.add_scalars({name: value})

    def add_scalars(
        self, scalar_dict: Mapping[str, object], step: int = 0, file_path: str | None = None, **kwargs: object
    ) -> None:
        self.hook.record(self.runner, scalar_dict)


def best_results(runner: Runner) -> tuple[dict[str, float], dict[str, str]]:
    """The best scores of a training as ``best/NAME``, and facts about the best checkpoint, or else the last one."""
    scalars: dict[str, object] = {}
    best: Path | None = None
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and "epoch" in hook.best:
            scalars, best = dict(hook.best), Path(runner.work_dir) / "best.pth"
        elif isinstance(hook, EpochCheckpointHook) and getattr(hook, "best_ckpt_path", None):
            scalars = {hook.key_indicators[0]: runner.message_hub.get_info("best_score")}
            best = Path(runner.work_dir) / Path(hook.best_ckpt_path).name
    checkpoint = best if best is not None and best.is_file() else folders.last_checkpoint(runner.work_dir)
    facts = {f"best/{name}": value for name, value in scalars.items() if isinstance(value, str)}
    if checkpoint is not None and checkpoint.is_file():
        facts |= {"checkpoint": checkpoint.name, "checkpoint_sha256": sha256_of(checkpoint)}
    return {f"best/{name}": value for name, value in scalars_of(scalars).items()}, facts


def settings_digest(settings: object) -> str:
    """A SHA-256 digest of the result of :func:`run_settings`."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def flat(config: object, name: str = "") -> dict[str, object]:
    """A config's values by their dotted keys; lists without dicts become JSON.

    Examples:
        >>> flat({"model": {"type": "A", "layers": [1, 2]}, "hooks": [{"type": "B"}]})
        {'model.type': 'A', 'model.layers': '[1, 2]', 'hooks.0.type': 'B'}
    """
    if isinstance(config, list | tuple) and not any(isinstance(item, Mapping) for item in config):
        return {name: json.dumps(config, default=str)}
    if isinstance(config, Mapping | list | tuple):
        items = config.items() if isinstance(config, Mapping) else enumerate(config)
        parts = [flat(value, f"{name}.{key}" if name else str(key)) for key, value in items]
        return {key: value for part in parts for key, value in part.items()}
    return {name: config}


def _steps(runner: Runner, batches: int) -> int:
    return optimizer_steps(runner.optim_wrapper, batches, runner.max_iters)


def _place(loop: BaseLoop, batches: int) -> float:
    """The number of batches as epochs, with fractions; unchanged in a loop over iterations."""
    if not isinstance(loop, TrainLoop):
        return float(batches)
    length = len(loop.dataloader)
    # At the end of an epoch, the loop may have counted its batches but not yet the epoch.
    return float(loop.epoch + (batches - loop.epoch * length) / length)
