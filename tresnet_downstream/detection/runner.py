"""The runner for configs of MMDetection."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import FileHandler
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config, ConfigDict
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

# Hooks for seeds, plain checkpoints, non-finite losses, and notices about blocks that need more memory.
OUR_HOOKS = ("SeedHook", "DetectionCheckpointHook", "FiniteLossHook", "PlainBlocksHook")


@RUNNERS.register_module()
class DetectionRunner(FolderRunner):
    """MMEngine's runner for configs of MMDetection, set by ``runner_type``; MMDetection's own tools use it too.

    It changes a config of MMDetection as follows:

    * a ``data_root`` set on the command line is passed to every data set that has the config's ``data_root``, and the
      metrics read the annotation file of the data they score;
    * COCO data sets and metrics are replaced by :class:`CocoBoxes` and :class:`DetectionMetric`, which check the data;
      ``coco_eval`` names the package that computes the scores;
    * the neck's ``in_channels`` are set to the backbone's channels if they are None;
    * with ``sampling="repeat_factor"`` images of rare classes are repeated, by MMDetection's ``ClassBalancedDataset``;
    * a TResNet gets RGB in [0, 1] and padded images if the config has the normalisation of another network;
    * the seed is 0 if the config has no ``randomness``;
    * the hooks :data:`OUR_HOOKS` are added;
    * classes are read from the training data, and ``num_classes`` of every head is set to their number;
    * ``amp`` (``bfloat16`` or ``float16``) also works on a CPU;
    * checkpoints are complete files of plain data, and checkpoints of other detectors or classes are refused;
    * each run of a process has its own visualizer;
    * before a training or a scoring, the parts of the detector are checked against one another and the data;
    * environment, config and hooks are written only to the log file, not to the terminal;
    * a user's mistakes end in one line;
    * a training does not overwrite a run, see :class:`FolderRunner`; ``overwrite=True`` renames its folder.
    """

    scored_split = "test"  # name of the scored split in messages
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

    def build_logger(self, *args: object, **kwargs: object) -> MMLogger:
        """Builds the logger; until the runner is built, the terminal shows only warnings.

        MMEngine would print hundreds of lines of environment, config and hooks, which hide our notices.
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
            # MMEngine's own way fails without a GPU.
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
        """Changes a config of MMDetection as described by the class, before anything is built from it."""
        follow_options(cfg)
        use_checked_components(cfg)
        set_classes(cfg)
        repeat_rare_classes(cfg)
        fill_neck_channels(cfg)
        prepare_pixels(cfg)
        import_again(cfg)

    def train(self) -> nn.Module:
        """Checks the parts of the detector, and trains."""
        with mistakes_in_types(), self._naming_missing_operators():
            self._check_parts()
            if has_masks(self.detector):
                require_mask_loading(self.cfg, self.detector_config)
            model: nn.Module = super().train()
            return model

    def val(self) -> dict[str, float]:
        """Checks the parts of the detector, and validates."""
        with mistakes_in_types(), self._naming_missing_operators():
            self._check_parts()
            scores: dict[str, float] = super().val()
            return scores

    def test(self) -> dict[str, float]:
        """Checks the parts of the detector, and scores; with test-time augmentation, only boxes."""
        with mistakes_in_types(), self._naming_missing_operators():
            self._check_parts()
            if self.detector_config is not self.cfg.model:
                check_views(self.cfg)
                if has_masks(detector_of(self.model)):
                    raise UserError("test-time augmentation merges boxes, and this detector has a head for masks")
            scores: dict[str, float] = super().test()
            return scores

    @contextmanager
    def _naming_missing_operators(self) -> Iterator[None]:
        """A context that turns the exception for a missing operator of mmcv into a UserError.

        Raises:
            UserError: if an operator is missing; the message names the operator and the detector.
        """
        try:
            yield
        except NotImplementedError as error:
            if "mmcv._ext." not in str(error):
                raise
            raise UserError(
                f"model: {type(self.detector).__name__} needs an operator that is not installed: {error}"
            ) from error

    def _check_parts(self) -> None:
        check_network(self.detector, self.detector_config)

    @property
    def detector(self) -> nn.Module:
        """The detector itself."""
        return detector_of(self.model)

    @property
    def detector_config(self) -> ConfigDict:
        """The config of the detector, without the wrapper of test-time augmentation."""
        return detector_config(self.cfg)

    def call_hook(self, fn_name: str, **kwargs: object) -> None:
        """Calls the hooks; before ``before_run``, checks the heads' classes against the data sets."""
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

    def register_hooks(
        self, default_hooks: Mapping[str, object] | None = None, custom_hooks: Sequence[object] | None = None
    ) -> None:
        """Registers the config's hooks, and each of our hooks unless the config has one of its type."""
        configured = list(custom_hooks or [])
        names = {str(hook.get("type")).rpartition(".")[2] for hook in configured if isinstance(hook, dict)}
        ours = [{"type": f"{SCOPE}.{name}"} for name in OUR_HOOKS if name not in names]
        super().register_hooks(default_hooks, [*ours, *configured, UnreadableImagesHook()])

    def build_visualizer(self, visualizer: Visualizer | dict[str, object] | None = None) -> Visualizer:
        """Builds a visualizer that writes into the folder of this run.

        All configs of MMDetection use the same name for it. For an existing name MMEngine returns the existing
        visualizer, which writes into the folder of an earlier run.
        """
        if isinstance(visualizer, dict):
            visualizer = {**visualizer, "name": str(self._log_dir)}
        return super().build_visualizer(visualizer)

    def resume(self, filename: str, *args: object, **kwargs: object) -> None:
        """Resumes from a checkpoint; the best checkpoint is expected in this folder, even if the folder was moved."""
        super().resume(filename, *args, **kwargs)
        info = self.message_hub.runtime_info
        # A training did not write a file of another name, so that file must not be renamed or removed.
        if not folders.is_best(Path(info.get("best_ckpt") or "best.pth").name):
            for key in BEST:
                info.pop(key, None)
        for pointer in ("best_ckpt", "last_ckpt"):
            if path := info.get(pointer):
                self.message_hub.update_info(pointer, str(Path(self.work_dir) / Path(path).name))


def _use_our_optimizer_wrapper(cfg: Config) -> None:
    """Replaces MMEngine's optimiser wrapper by :class:`RecipeOptimWrapper` if the config needs it.

    It is needed for ``amp`` on any device, and for accumulation. MMEngine accumulates across the ends of epochs, so a
    run that is resumed between epochs would lose gradients.
    """
    wrapper = cfg.get("optim_wrapper")
    if not wrapper:
        return
    if wrapper.get("type") == "AmpOptimWrapper" and not torch.cuda.is_available():
        # `mim train --amp` sets this type, which needs a GPU.
        cfg.amp = "bfloat16"
        for key in ("dtype", "loss_scale", "use_fsdp"):
            wrapper.pop(key, None)
        tell("note: there is no GPU, so mixed precision is bfloat16 on the CPU (amp)")
    accumulates = wrapper.get("accumulative_counts", 1) != 1 and wrapper.get("type", "OptimWrapper") == "OptimWrapper"
    if cfg.get("amp") or accumulates:
        wrapper.update(type=f"{SCOPE}.RecipeOptimWrapper", amp=cfg.get("amp"), reduction="mean")


@RUNNERS.register_module()
class QuietDetectionRunner(QuietRunner, DetectionRunner):
    """A :class:`DetectionRunner` that leaves the terminal to a progress bar."""
