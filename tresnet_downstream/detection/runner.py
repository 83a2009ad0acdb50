"""The runner of detectors: MMEngine's, for configs of MMDetection."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging import FileHandler
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn

from tresnet_downstream.detection.adjusted_config import (
    draws_text,
    fill_neck_channels,
    follow_options,
    import_again,
    prepare_pixels,
    repeat_rare_classes,
    require_mask_loading,
    set_classes,
    tell_of_schedule,
    use_checked_components,
)
from tresnet_downstream.detection.checkpoint_files import OrderedCheckpointHook
from tresnet_downstream.detection.network_check import (
    check_classes,
    check_network,
    classes_with_boxes,
    detector_of,
    has_masks,
)
from tresnet_downstream.detection.shared_images import tell_shared_images
from tresnet_downstream.detection.tta import check_views, detector_config
from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import RUNNERS, SCOPE
from tresnet_downstream.running import folders
from tresnet_downstream.running.config_checks import mistakes_in_types
from tresnet_downstream.running.runner import FolderRunner, QuietRunner, join_processes, set_launcher
from tresnet_downstream.running.system import end_in_one_line
from tresnet_downstream.running.top_level import require_read_options
from tresnet_downstream.running.unreadable import UnreadableImagesHook
from tresnet_downstream.running.validation import BEST

# Seeds of the data; checkpoints of plain values; an end at a loss that is not finite; what blocks cannot save memory.
OUR_HOOKS = ("SeedHook", "DetectionCheckpointHook", "FiniteLossHook", "PlainBlocksHook")


@RUNNERS.register_module()
class DetectionRunner(FolderRunner):
    """MMEngine's runner for configs of MMDetection, as their ``runner_type``; MMDetection's own tools take it too.

    What it adds to a config of MMDetection:

    * a ``data_root`` set on the command line reaches every data set that still has the config's own, and the
      metrics read the annotation file of the data they score;
    * COCO data sets and metrics are built in their checked form (:class:`CocoBoxes`, :class:`DetectionMetric`);
      ``coco_eval`` names what computes the scores;
    * the neck's ``in_channels`` follow the backbone where the config leaves them None;
    * with ``sampling="repeat_factor"`` images of rare classes are repeated, by MMDetection's ``ClassBalancedDataset``;
    * a TResNet gets RGB in [0, 1] and padded sides where the config has the pixels of MMDetection's own networks;
    * the seed is 0 where the config has no ``randomness``;
    * hooks of ours run beside the config's: :data:`OUR_HOOKS`;
    * classes come from the training data, and every head's ``num_classes`` follows them;
    * ``amp`` (``bfloat16`` or ``float16``) works on a CPU as well;
    * checkpoints are whole files of plain data, and are refused if they hold another detector or other classes;
    * each run of a process has a visualizer of its own;
    * before a training or a scoring begins, the parts of the detector must fit one another and the data;
    * environment, config and hooks are written to the log file alone, and not before every error on the terminal;
    * mistakes of the user's end in one line;
    * a training overwrites no run, see :class:`FolderRunner`: ``overwrite=True`` moves the one in its folder aside.
    """

    scored_split = "test"  # what the data of a test is called
    progress_hook: ClassVar[str] = "DetectionProgressHook"
    replaced_hooks: ClassVar[dict[str, tuple[str, str]]] = {
        **FolderRunner.replaced_hooks,
        "checkpoint": ("CheckpointHook", OrderedCheckpointHook.__name__),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._silent: dict[logging.Handler, int] = {}
        super().__init__(*args, **kwargs)
        for handler, level in self._silent.items():
            if handler.level == logging.WARNING:
                handler.setLevel(level)
        if file := next((one.baseFilename for one in self.logger.handlers if isinstance(one, FileHandler)), None):
            self.logger.info(f"environment, config and hooks are in {file}")

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Builds the logger; until the runner is built, the terminal shows warnings alone.

        MMEngine would print hundreds of lines of environment, config and hooks, which hide what is told.
        """
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, FileHandler) and handler.level < logging.WARNING:
                self._silent[handler] = handler.level
                handler.setLevel(logging.WARNING)
        return logger

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Builds a runner from a whole config."""
        end_in_one_line()
        with mistakes_in_types():
            return cls._from_cfg(copy.deepcopy(cfg))

    @classmethod
    def _from_cfg(cls, cfg: Config) -> Runner:
        init_default_scope(cfg.get("default_scope", "mmdet"))
        if cfg.get("launcher", "none") == "pytorch":
            # Before MMEngine does: without a GPU it fails.
            join_processes(cfg.launcher)
            set_launcher(cfg, cfg.launcher)
        require_read_options(cfg)
        cfg.setdefault("randomness", {"seed": 0})
        cls.adjust(cfg)
        tell_of_schedule(cfg)
        folders.make(cfg.work_dir)
        _use_our_optimizer_wrapper(cfg)
        return super().from_cfg(cfg)

    @classmethod
    def adjust(cls, cfg: Config) -> None:
        """Changes a config of MMDetection as the class says, before anything is built from it."""
        follow_options(cfg)
        use_checked_components(cfg)
        set_classes(cfg)
        repeat_rare_classes(cfg)
        fill_neck_channels(cfg)
        prepare_pixels(cfg)
        import_again(cfg)

    def train(self) -> Any:
        """Trains, once the parts of the detector fit one another and the data."""
        with mistakes_in_types(), self._naming_missing_operators():
            self._check_parts()
            if has_masks(self.detector):
                require_mask_loading(self.cfg, self.detector_config)
            return super().train()

    def val(self) -> Any:
        """Validates, once the parts of the detector fit one another."""
        with mistakes_in_types(), self._naming_missing_operators():
            self._check_parts()
            return super().val()

    def test(self) -> Any:
        """Scores, once the parts of the detector fit one another; with test-time augmentation, boxes alone."""
        with mistakes_in_types(), self._naming_missing_operators():
            self._check_parts()
            if self.detector_config is not self.cfg.model:
                check_views(self.cfg)
                if has_masks(detector_of(self.model)):
                    raise UserError("test-time augmentation merges boxes, and this detector has a head for masks")
            return super().test()

    @contextmanager
    def _naming_missing_operators(self) -> Iterator[None]:
        """Inside, an operator of mmcv that is not installed ends in one line, which names it and the detector.

        Raises:
            UserError: for such an operator.
        """
        try:
            yield
        except NotImplementedError as error:
            if "mmcv._ext." not in str(error):
                raise
            raise UserError(f"model: {type(self.detector).__name__} needs another operator: {error}") from error

    def _check_parts(self) -> None:
        check_network(self.detector, self.detector_config)

    @property
    def detector(self) -> nn.Module:
        """The detector itself."""
        return detector_of(self.model)

    @property
    def detector_config(self) -> Any:
        """The config of the detector itself; test-time augmentation puts its own around it."""
        return detector_config(self.cfg)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks; before the first, when the data sets are there, the classes of the heads are checked."""
        if fn_name == "before_run":
            for loop in (self._train_loop, self._val_loop, self._test_loop):
                dataset = getattr(getattr(loop, "dataloader", None), "dataset", None)
                if loop is self._train_loop and (draws := draws_text(dataset)):
                    tell(draws)
                if classes := classes_with_boxes(getattr(dataset, "metainfo", None)):
                    check_classes(self.detector, self.detector_config, classes)
            if is_main_process():
                tell_shared_images(self)
        super().call_hook(fn_name, **kwargs)

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Registers the config's hooks, and ours where the config has none of their type."""
        given = list(custom_hooks or [])
        names = {str(hook.get("type")).rpartition(".")[2] for hook in given if isinstance(hook, dict)}
        ours = [{"type": f"{SCOPE}.{name}"} for name in OUR_HOOKS if name not in names]
        super().register_hooks(default_hooks, [*ours, *given, UnreadableImagesHook()])

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
        info = self.message_hub.runtime_info
        # A file of another name is none that a training wrote, and must not be set aside or removed.
        if not folders.is_best(Path(info.get("best_ckpt") or "best.pth").name):
            for key in BEST:
                info.pop(key, None)
        for key in ("best_ckpt", "last_ckpt"):
            if path := info.get(key):
                self.message_hub.update_info(key, str(Path(self.work_dir) / Path(path).name))


def _use_our_optimizer_wrapper(cfg: Config) -> None:
    """Puts :class:`RecipeOptimWrapper` in the place of MMEngine's, where the config sets what only ours does.

    That is ``amp`` on any device, and accumulation that ends with the epoch. MMEngine's adds up batches over the ends
    of epochs, and a run resumed there has lost the gradients of the last ones.
    """
    wrapper = cfg.get("optim_wrapper")
    if not wrapper:
        return
    if wrapper.get("type") == "AmpOptimWrapper" and not torch.cuda.is_available():
        # Of `mim train --amp`; MMEngine's asks for a GPU.
        cfg.amp = "bfloat16"
        for key in ("dtype", "loss_scale", "use_fsdp"):
            wrapper.pop(key, None)
        tell("note: there is no GPU, so mixed precision is bfloat16 on the CPU (amp)")
    accumulates = wrapper.get("accumulative_counts", 1) != 1 and wrapper.get("type", "OptimWrapper") == "OptimWrapper"
    if cfg.get("amp") or accumulates:
        wrapper.update(type=f"{SCOPE}.RecipeOptimWrapper", amp=cfg.get("amp"), reduction="mean")


@RUNNERS.register_module()
class QuietDetectionRunner(QuietRunner, DetectionRunner):
    """The same, with the terminal left to a progress bar."""
