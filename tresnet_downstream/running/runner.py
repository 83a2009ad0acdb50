"""What the trainings of every task share: a quiet runner, several processes, a tidy end."""

import contextlib
import io
import logging
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from tresnet_downstream import interrupts
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.hooks import ProgressHook


class QuietRunner(Runner):
    """MMEngine's runner, except that the terminal is left to the progress bar: the log file has every line.

    Ctrl-C ends it even where a bare ``except`` of MMEngine had swallowed that.

    Attributes:
        description: what checkpoints say of the model, as plain values; set by the task.
    """

    description: Mapping[str, Any] = MappingProxyType({})

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Builds the logger as the base class does."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Loads a checkpoint as the base class does, which prints where from."""
        with contextlib.redirect_stdout(io.StringIO()):
            return super().load_checkpoint(*args, **kwargs)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks, unless Ctrl-C was pressed."""
        interrupts.look()
        super().call_hook(fn_name, **kwargs)


def join_processes(launcher: str) -> None:
    """Joins the processes that torchrun started: NCCL where each has a GPU, otherwise gloo."""
    if launcher == "none" or dist.is_initialized():
        return
    if missing := {"RANK", "WORLD_SIZE", "LOCAL_RANK"} - set(os.environ):
        raise UserError(f"--launcher pytorch: {', '.join(sorted(missing))} not set; start with torchrun")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def set_launcher(config: Config, launcher: str) -> None:
    """Says in the config how processes were started and, for several, how they wrap the model."""
    config.launcher = launcher
    if launcher != "none":
        # MMEngine's own default names a GPU.
        device_ids = [int(os.environ["LOCAL_RANK"])] if torch.cuda.is_available() else None
        config.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "device_ids": device_ids,
            "find_unused_parameters": False,
        }


def close(runner: Runner) -> None:
    """Ends what a run has open: the workers that load data, the progress bar, the writers of logs."""
    for loop in (runner._train_loop, runner._val_loop):
        # Left to the garbage collector, which takes a loader apart in another order, each worker ends in 5 s.
        if (workers := getattr(getattr(loop, "dataloader", None), "_iterator", None)) is not None:
            workers._shutdown_workers()
    for hook in runner.hooks:
        if isinstance(hook, ProgressHook):
            hook.close()
    if is_main_process():
        runner.visualizer.close()
