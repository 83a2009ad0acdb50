"""The runner of every task's trainings, with run folders, several processes and an orderly end."""

import atexit
import contextlib
import io
import logging
import os
import sys
import uuid
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, LogProcessor, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from tresnet_downstream import interrupts
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import SCOPE
from tresnet_downstream.running import folders, processes, progress, signals
from tresnet_downstream.running.checkpoints import bare, require_finite
from tresnet_downstream.running.clipping import with_clipping
from tresnet_downstream.running.config import save_config
from tresnet_downstream.running.early_stopping import PatienceHook
from tresnet_downstream.running.folder_lock import FolderInUseError, locked
from tresnet_downstream.running.left_out import left_out_file, left_out_of, write_left_out
from tresnet_downstream.running.log_writers import start_writers, with_tensorboard
from tresnet_downstream.running.loops import TrainLoop, check_step_settings, loop_config
from tresnet_downstream.running.mean_losses import with_mean_losses
from tresnet_downstream.running.mid_epoch import batches_of_epoch, batches_stay
from tresnet_downstream.running.partial_files import remove_partial_files
from tresnet_downstream.running.progress import ProgressHook, position
from tresnet_downstream.running.rates import give_factors, rate_factors, rate_settings, take_effect
from tresnet_downstream.running.resume_point import newest_whole_checkpoint
from tresnet_downstream.running.resumed_state import Checkpoint, RunSettings, require_optimisation, require_parts
from tresnet_downstream.running.resuming import ConfigSchedule, images_of_a_step, require_same_run, run_settings
from tresnet_downstream.running.system import close_logs, prepare_workers
from tresnet_downstream.running.top_level import tell_ineffective_keys, tell_unread_keys
from tresnet_downstream.running.trackers.hook import TrackerHook, settings_digest
from tresnet_downstream.running.trackers.journal import unfinished_start
from tresnet_downstream.running.trackers.settings import TENSORBOARD, require_trackers
from tresnet_downstream.running.validation import LastValidationHook
from tresnet_downstream.system_errors import names_folder


class FolderRunner(Runner):
    """MMEngine's runner, except that a training does not overwrite an earlier run, and checks what it resumes.

    A folder that holds a run is refused unless the config has ``resume`` or ``overwrite=True``. Changes of the config
    since the resumed checkpoint are refused or printed, see :mod:`resuming`. Only trainings save their config in the
    folder. Trainings over epochs use :class:`TrainLoop`, with the config's ``val_steps``.
    """

    # By the key in `default_hooks`: MMEngine's hook and its replacement. `hooks_for_steps`: only with `val_steps`.
    replaced_hooks: ClassVar[dict[str, tuple[str, str]]] = {"param_scheduler": ("ParamSchedulerHook", "ScheduleHook")}
    hooks_for_steps: ClassVar[dict[str, tuple[str, str]]] = {"logger": ("LoggerHook", "StepLoggerHook")}

    # Prefixes that the names of parts in `lr_factors` and `freeze` may leave out.
    part_roots: ClassVar[tuple[str, ...]] = ("",)

    _timestamp: str
    run_id = ""
    settings_digest = ""
    settings: RunSettings | None = None
    # Properties of the data that are compared like free settings, by the names in messages; set by the task.
    data_settings: Mapping[str, object] = MappingProxyType({})
    resumed_id: str | None = None
    _resuming = _has_optimiser = False
    _batches_of_epoch = 0  # trained before the checkpoint that is resumed
    _accounts: Mapping[str, Sequence[float]] = MappingProxyType({})
    _moved_aside: Path | None = None  # the run that the folder held, in the first process
    _changes: list[str] | None = None  # changed settings; None if the checkpoint does not hold its settings
    _images_of_a_step: str | None = None  # the result of `images_of_a_step`

    def __init__(self, model: nn.Module | Mapping[str, object], work_dir: str, *args: object, **kwargs: object) -> None:
        self.trackers = require_trackers(kwargs.get("cfg") or {})
        with names_folder(work_dir):
            super().__init__(model, work_dir, *args, **kwargs)

    def dump_config(self) -> None:
        """Does nothing: :meth:`train` saves the config."""

    def setup_env(self, env_cfg: dict[str, object]) -> None:
        """Sets up the environment as the base class does; two runs of the same second get different log folders."""
        prepare_workers(self.cfg)
        super().setup_env(env_cfg)
        processes.watch_processes()
        # Several processes take more than a second to start.
        while self.world_size == 1 and (Path(self.work_dir) / self._timestamp).exists():
            moment = datetime.strptime(self._timestamp, "%Y%m%d_%H%M%S") + timedelta(seconds=1)
            self._timestamp = moment.strftime("%Y%m%d_%H%M%S")

    def build_train_loop(self, loop: BaseLoop | dict[str, object]) -> BaseLoop:
        """Builds the loop, with :class:`TrainLoop` instead of MMEngine's loop over epochs."""
        config = loop_config(loop, self.cfg.get("val_steps")) if isinstance(loop, Mapping) else loop
        built: BaseLoop = super().build_train_loop(config)
        if isinstance(built, TrainLoop):
            _keep_workers(built.dataloader)
        wrapper = self.optim_wrapper  # not built yet: a config
        if isinstance(built, TrainLoop) and isinstance(wrapper, dict):
            names = {str(wrapper.get(key)).removeprefix(f"{SCOPE}.") for key in ("type", "constructor")}
            if names & {"RecipeOptimWrapper", "MatrixDecayConstructor"}:
                wrapper["epoch_length"] = len(built.dataloader)
        return built

    def build_optim_wrapper(
        self, optim_wrapper: OptimWrapper | OptimWrapperDict | dict[str, object]
    ) -> OptimWrapper | OptimWrapperDict:
        """Builds the optimiser with the config's gradient clipping and learning rates by part."""
        if self._has_optimiser:  # MMEngine calls this again when a run is resumed
            return optim_wrapper
        built = super().build_optim_wrapper(with_clipping(optim_wrapper, self.cfg))
        self._has_optimiser = True
        if settings := rate_settings(self.cfg):
            model = bare(self.model)
            give_factors(built, model, rate_factors(settings, model, self.part_roots))
        return built

    def build_val_loop(self, loop: BaseLoop | dict[str, object]) -> BaseLoop:
        """Builds the loop; in a training, its workers live until the training ends."""
        built: BaseLoop = super().build_val_loop(loop)
        if isinstance(self._train_loop, TrainLoop):
            _keep_workers(built.dataloader)
        return built

    def register_default_hooks(self, hooks: Mapping[str, object] | None = None) -> None:
        """Registers MMEngine's default hooks, some of them replaced by hooks of this package."""
        hooks = dict(hooks or {})
        replaced = self.replaced_hooks | ({} if self.cfg.get("val_steps") is None else self.hooks_for_steps)
        for name, (theirs, ours) in replaced.items():
            hook = hooks.get(name, {"type": theirs})
            if isinstance(hook, Mapping) and str(hook.get("type")).removeprefix("mmengine.") == theirs:
                hooks[name] = {**hook, "type": f"{SCOPE}.{ours}"}
        super().register_default_hooks(hooks)

    def register_hooks(
        self, default_hooks: Mapping[str, object] | None = None, custom_hooks: Sequence[object] | None = None
    ) -> None:
        """Registers the config's hooks, and those for early stopping, trackers and the record of validations."""
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(PatienceHook.of(self.cfg))
        if any(setting["type"] != TENSORBOARD for setting in self.trackers):
            self.register_hook(TrackerHook(self.trackers))
        self.register_hook(LastValidationHook())

    def build_visualizer(self, visualizer: Visualizer | dict[str, object] | None = None) -> Visualizer:
        """Builds the log writers; one that cannot start raises a UserError."""
        if isinstance(visualizer, dict):
            visualizer = with_tensorboard(visualizer, self.trackers)
        built = super().build_visualizer(visualizer)
        start_writers(built)
        return built

    def build_log_processor(self, log_processor: LogProcessor | dict[str, object]) -> LogProcessor:
        """Builds the log processor, which logs means over processes."""
        return super().build_log_processor(with_mean_losses(log_processor))

    def train(self) -> nn.Module:
        """Trains the model in the run folder.

        Raises:
            UserError: if another training runs in the folder, or the folder holds a run and the config has neither
                ``resume`` nor ``overwrite``.
        """
        check_step_settings(self.cfg)
        tell_unread_keys(self.cfg)
        tell_ineffective_keys(self.cfg)
        try:
            with names_folder(self.work_dir), contextlib.ExitStack() as locks:
                for hook in self.hooks:
                    if isinstance(hook, TrackerHook):
                        hook.connect(self.work_dir)
                self._take_folder(locks)
                if self._stops_in_order():
                    locks.enter_context(signals.deferred(self.world_size))
                with processes.together():
                    model: nn.Module = super().train()
                    return model
        except UserError:
            if self._moved_aside is not None and not folders.holds_run(self.work_dir):
                folders.put_back(self._moved_aside, self.work_dir, self.log_dir)
            raise

    def val(self) -> dict[str, float]:
        """Scores the validation data."""
        with names_folder(self.work_dir):
            metrics: dict[str, float] = super().val()
            return metrics

    def test(self) -> dict[str, float]:
        """Scores the test data."""
        with names_folder(self.work_dir):
            metrics: dict[str, float] = super().test()
            return metrics

    def _stops_in_order(self) -> bool:
        """Whether the loop checks for signals after each step, as TrainLoop does; in other loops they act at once."""
        loop = self._train_loop
        return isinstance(loop, TrainLoop) or (isinstance(loop, Mapping) and "val_steps" in loop_config(loop, None))

    def _take_folder(self, locks: contextlib.ExitStack) -> None:
        """Locks the folder until ``locks`` is closed, and begins a new run in it or finds the checkpoint to resume."""
        overwrite = bool(self.cfg.get("overwrite"))
        self.settings = run_settings(self.cfg, self.world_size)
        self.settings_digest = settings_digest(self.settings)
        folder = Path(self.work_dir).resolve()
        source: str | None = self.__dict__["_load_from"]
        within = source is not None and folder in Path(source).resolve().parents
        resume = self._resume and (source is None or within)
        folders.check(folder, resume, overwrite)
        self._lock_folder(locks)
        if is_main_process():
            remove_partial_files(folder, locked=True)
            remove_partial_files(folder.parent / ".cache")
        if resume:
            # MMEngine's own search would use the old path if the folder was moved.
            source = source or (str(newest_whole_checkpoint(folder) or "") or None)
            self._load_from, resume = source, source is not None
            if not resume:
                tell(f"{folder} has no checkpoint to resume, so the training starts from the beginning")
        elif within and folders.holds_run(folder):
            raise UserError(f"load_from: {source} is in the folder that `overwrite` renames; copy it to another folder")
        barrier()
        if is_main_process() and not resume:
            again = None if overwrite or folders.holds_run(folder) else unfinished_start(folder, self.settings_digest)
            self.run_id, self._moved_aside = folders.begin(self.work_dir, self.log_dir, locks, again)
            self._save_config()
        barrier()

    def _lock_folder(self, locks: contextlib.ExitStack) -> None:
        """Locks the folder in the first process; all processes raise if that fails."""
        barrier()  # checking the lock holds it for a moment, so all processes must have checked
        refusal: list[str] = [""]
        if is_main_process():
            try:
                locks.enter_context(locked(self.work_dir))
            except FolderInUseError as error:
                refusal = [str(error)]
        broadcast_object_list(refusal)
        if refusal[0]:
            raise UserError(refusal[0])

    def _save_config(self) -> None:
        save_config(self.cfg, Path(self.work_dir) / f"{Path(self.cfg.filename or self.timestamp).stem}.py")

    def resume(self, filename: str, *args: object, **kwargs: object) -> None:
        """Resumes from a checkpoint; changes of the config are refused or take effect."""
        schedule = ConfigSchedule(self)
        self._resuming = True
        super().resume(filename, *args, **kwargs)
        if self._changes is None:
            tell(f"{filename}: has no settings of its training; those of the config are used from now on")
            schedule.restore(self, self._batches_of_epoch)
        elif self._changes:
            for change in self._changes:
                tell(f"resumed with a change: {change}")
            if self._images_of_a_step:
                tell(self._images_of_a_step)
            schedule.restore(self, self._batches_of_epoch)
        self._resuming = False
        if isinstance(self.train_loop, EpochBasedTrainLoop) and self.epoch >= self.max_epochs:
            tell(f"nothing is left to train: the run has completed all {self.max_epochs} epochs")
        if is_main_process():
            folders.write_run_id(self.work_dir, self.run_id)
            self._save_config()
            # A killed run may have written a checkpoint without removing the outdated ones.
            folders.remove_within_epochs(self.work_dir, Path(filename).name)

    def resumed_sums(self, hook: Hook) -> Sequence[float] | None:
        """The sums of a hook's account in the resumed checkpoint; None if it has none."""
        return self._accounts.get(type(hook).__name__)

    def load_checkpoint(self, *args: object, **kwargs: object) -> Checkpoint:
        """Loads a checkpoint. A checkpoint to resume is compared with the settings of this run."""
        checkpoint: Checkpoint = super().load_checkpoint(*args, **kwargs)
        if self._resuming:
            meta = checkpoint["meta"]
            stay = False
            self.resumed_id = meta.get("run_id")
            self.run_id = self.resumed_id or self.run_id or uuid.uuid4().hex
            if "run" in meta and self.settings is not None:
                self._changes = require_same_run(meta["run"], self.settings, meta.get("epoch", 0))
                before, now = meta["run"]["free"], self.settings["free"]
                self._images_of_a_step = images_of_a_step(before, now)
                stay = batches_stay(self.train_dataloader, before, now)
            if isinstance(self.train_loop, TrainLoop):
                length = len(self.train_loop.dataloader)
                self._batches_of_epoch = batches_of_epoch(meta, length, self._changes or [], stay)
            require_optimisation(checkpoint, self, self._load_from or "checkpoint", self._changes == [])
            self._accounts = dict(meta.get("accounts", {})) if is_main_process() else {}
        return checkpoint

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks, and does what must happen right before or after them, such as adding the run id."""
        if fn_name == "after_load_checkpoint" and self._resuming:
            require_parts(kwargs["checkpoint"], self._load_from or "checkpoint")
            kwargs["checkpoint"]["meta"].pop("config", None)  # MMEngine would execute it
        if fn_name == "before_run" and self.settings is not None and hasattr(self.train_dataloader.dataset, "__len__"):
            # The length of the schedule depends on it, and it is known only after the data set is built.
            self.settings["free"]["training images"] = len(self.train_dataloader.dataset)
            self.settings["free"].update(self.data_settings)
            scored: Any = getattr(getattr(self._val_loop, "dataloader", None), "dataset", None)
            self.settings["free"]["validation images"] = len(scored) if hasattr(scored, "__len__") else None
        if fn_name == "before_run" and isinstance(self.optim_wrapper, OptimWrapper):
            take_effect(self.optim_wrapper)
        if fn_name == "before_train" and is_main_process():
            for split, loop in (("train", self._train_loop), ("val", self._val_loop)):
                dataset = getattr(getattr(loop, "dataloader", None), "dataset", None)
                write_left_out(self.work_dir, left_out_file(split), left_out_of(dataset))
        if fn_name == "before_save_checkpoint":
            meta = kwargs["checkpoint"]["meta"]
            meta.update(run_id=self.run_id, run=self.settings)
            if isinstance(self._train_loop, TrainLoop):
                meta["step"] = self._train_loop.step
                if "optimizer" in kwargs["checkpoint"] and self._train_loop.accounts:
                    meta.setdefault("accounts", self._train_loop.accounts)
        super().call_hook(fn_name, **kwargs)
        if fn_name == "after_train_iter" and self.iter % 100 == 0:
            progress.limit_history(self)
        if fn_name == "before_save_checkpoint":
            require_finite(kwargs["checkpoint"], position(self))

    def save_checkpoint(self, out_dir: str, filename: str, *args: object, **kwargs: object) -> None:
        """Saves a checkpoint. The file appears under its name only when it is complete.

        Raises:
            NonFiniteLossError: if a weight, a buffer or an averaged weight is NaN or infinite.
        """
        if "://" in str(out_dir):  # an object store, which writes whole objects
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif is_main_process():
            with whole_file(Path(out_dir) / filename) as partial:
                super().save_checkpoint(out_dir, partial.name, *args, **kwargs)


def _keep_workers(dataloader: DataLoader[object]) -> None:
    """Lets the workers of an unused data loader ignore the first signal, which ends the training in order.

    At the exit of Python the workers are killed. Python sends them a single SIGTERM and then waits for them, which
    would not end if nothing has closed the run, as in MMDetection's own scripts.
    """
    if hasattr(dataloader, "worker_init_fn"):
        dataloader.worker_init_fn = signals.left_to_parent(dataloader.worker_init_fn)
        loader = weakref.ref(dataloader)
        # Registered after the exit function of multiprocessing, so it runs before that one.
        atexit.register(lambda: _end_workers(loader()))


class QuietRunner(FolderRunner):
    """A :class:`FolderRunner` that logs to the log file only and leaves the terminal to the progress bar.

    Ctrl-C ends it even if a bare ``except`` in MMEngine has caught the KeyboardInterrupt.

    Attributes:
        description: description of the model for checkpoints, as plain values; set by the task.
    """

    description: Mapping[str, object] = MappingProxyType({})

    def build_logger(self, *args: object, **kwargs: object) -> MMLogger:
        """Builds the logger as the base class does."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger

    def load_checkpoint(self, *args: object, **kwargs: object) -> Checkpoint:
        """Loads a checkpoint as the base class does, without its output."""
        with contextlib.redirect_stdout(io.StringIO()):
            return super().load_checkpoint(*args, **kwargs)

    def call_hook(self, fn_name: str, **kwargs: object) -> None:
        """Calls the hooks, unless Ctrl-C was pressed."""
        interrupts.look()
        super().call_hook(fn_name, **kwargs)


def _end_workers(dataloader: object) -> None:
    """Ends the persistent workers of a data loader; one that does not respond is killed."""
    # The garbage collector would take 5 s for each worker, because it destroys a loader in another order.
    if (iterator := getattr(dataloader, "_iterator", None)) is not None:
        iterator._shutdown_workers()
        for worker in iterator._workers:
            worker.kill()  # torch sends SIGTERM, whose first occurrence the workers ignore, see `signals`


def join_processes(launcher: str) -> None:
    """Joins the process group of torchrun, with NCCL if there are GPUs, otherwise with gloo.

    Raises:
        UserError: if torchrun's environment variables are missing.
    """
    if launcher == "none" or dist.is_initialized():
        return
    if missing := {"RANK", "WORLD_SIZE", "LOCAL_RANK"} - set(os.environ):
        raise UserError(f"`launcher` pytorch: {', '.join(sorted(missing))} not set; start with torchrun")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def set_launcher(config: Config, launcher: str) -> None:
    """Sets the launcher in the config and, for several processes, the wrapper of the model."""
    config.launcher = launcher
    if launcher != "none":
        os.environ.setdefault("MKL_NUM_THREADS", "1")  # MMEngine would set it too, with a warning in each process
        # MMEngine's default is a GPU.
        device_ids = [int(os.environ["LOCAL_RANK"])] if torch.cuda.is_available() else None
        config.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "device_ids": device_ids,
            "find_unused_parameters": bool(config.get("find_unused_parameters", False)),
        }


def close(runner: Runner) -> None:
    """Closes a run: ends the workers of its data loaders, and closes the progress bar and the log writers."""
    for loop in (runner._train_loop, runner._val_loop):
        _end_workers(getattr(loop, "dataloader", None))
    for hook in runner.hooks:
        if isinstance(hook, ProgressHook):
            hook.close()
        elif isinstance(hook, TrackerHook):
            hook.close(sys.exc_info()[1])
    try:
        if is_main_process():
            with names_folder(runner.work_dir):
                runner.visualizer.close()
    finally:
        close_logs(runner)
