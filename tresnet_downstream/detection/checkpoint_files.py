"""Checkpoint files of a detector's training: the last ones and the best one."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook as EpochCheckpointHook
from mmengine.runner import Runner

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running import folders
from tresnet_downstream.running.early_stopping import BestScore
from tresnet_downstream.running.validation import BEST
from tresnet_downstream.weights.reading import read_checkpoint


@HOOKS.register_module()
class OrderedCheckpointHook(EpochCheckpointHook):
    """MMEngine's checkpoint hook, except that it removes a file only after its replacement is complete.

    Other differences from MMEngine: ``last_checkpoint`` is written completely or not at all. With ``val_steps``, the
    name of the best checkpoint contains its step, and the checkpoint of the last epoch is not changed (MMEngine would
    overwrite it to store which checkpoint is the best; here ``last_validation.json`` stores that).
    """

    filename_tmpl: str
    key_indicators: list[str]
    rules: list[str | None]
    last_ckpt: str | None
    best_ckpt_path: str | None
    out_dir: str
    file_backend: BaseStorageBackend

    def before_train(self, runner: Runner) -> None:
        """Prepares as MMEngine's hook does; in a resumed run, checks the best checkpoint."""
        super().before_train(runner)
        best = getattr(self, "best_ckpt_path", None)
        if best is None or runner.iter == 0 or "://" in best:
            return
        faults = [_fault(Path(best)) if is_main_process() else ""]
        broadcast_object_list(faults)
        if not faults[0]:
            if is_main_process():
                _remove_earlier_best(Path(best))
            return
        self.best_ckpt_path = None
        for key in BEST:
            runner.message_hub.runtime_info.pop(key, None)
        if is_main_process():
            tell(f"{faults[0]}; the next validation writes another one")
            folders.forget_validation(runner.work_dir)

    def best_score(self, metrics: Mapping[str, float]) -> BestScore | None:
        """The first score that ``save_best`` names, by which the best checkpoint is chosen.

        MMDetection's scores of boxes, from 0 to 1, are converted to percent; other scores are not changed.
        """
        if not self.save_best:
            return None
        key = self.key_indicators[0]
        if key not in metrics:
            return None
        return BestScore(title_of(key), in_percent(key, metrics[key]), -1 if self.rules[0] == "less" else 1)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, object]) -> None:
        outdated: list[int] = []
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = [self.keep_ckpt_ids.popleft()]
            self.keep_ckpt_ids.append(step)
            # The new checkpoint still lists the outdated one, so a resumed run removes it if this process is killed.
            runner.message_hub.update_info("keep_ckpt_ids", [*outdated, *self.keep_ckpt_ids])
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if outdated:
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        if not is_main_process():
            return
        folders.point_to(runner.work_dir, self.last_ckpt)
        folders.remove_within_epochs(runner.work_dir, Path(self.last_ckpt).name)
        for path in map(self._path, outdated):
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        template, last = self.filename_tmpl, self.last_ckpt
        by_steps = getattr(runner.train_loop, "val_steps", None) is not None
        if by_steps:
            self.filename_tmpl, self.last_ckpt = f"step_{runner.train_loop.step}.pth", None
        try:
            with self._removals_put_off():
                super()._save_best_checkpoint(runner, metrics)
        finally:
            if by_steps:
                self.filename_tmpl, self.last_ckpt = template, last

    def _path(self, step: int) -> str:
        return str(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))

    @contextmanager
    def _removals_put_off(self) -> Iterator[None]:
        """A context that postpones the removal of files to its end; none is removed after an error or if rewritten."""
        backend = self.file_backend
        self.file_backend = postponed = _PostponedRemovals(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        best = {getattr(self, "best_ckpt_path", None), *getattr(self, "best_ckpt_path_dict", {}).values()}
        for path in postponed.paths:
            if path not in best and backend.isfile(path):
                backend.remove(path)


def title_of(key: str) -> str:
    """The name of a score in printed lines."""
    return "AP" if key == "coco/bbox_mAP" else key


def in_percent(key: str, value: float) -> float:
    """A score in percent. MMDetection's scores of boxes and masks are from 0 to 1; ours of labels are in percent."""
    return (100 if key.startswith("coco/") else 1) * float(value)


class _PostponedRemovals:
    """A file backend that only records which files to remove."""

    def __init__(self, backend: BaseStorageBackend) -> None:
        self.backend = backend
        self.paths: list[str] = []

    def remove(self, path: str) -> None:
        self.paths.append(path)

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)


def _fault(best: Path) -> str:
    """The fault of the best checkpoint, or an empty string; a damaged file is renamed."""
    if not best.exists():
        return f"{best}: the best checkpoint is missing"
    try:
        read_checkpoint(best)
    except UserError as error:
        return f"{error}; it is now {folders.set_aside(best).name}"
    return ""


def _remove_earlier_best(best: Path) -> None:
    """Removes earlier best checkpoints of the same run and score, which remain if the run was killed."""
    pattern = re.compile(re.sub(r"(epoch|iter|step)_\d+\\.pth$", r"(epoch|iter|step)_\\d+\\.pth", re.escape(best.name)))
    run_id = read_checkpoint(best, map_location="meta").get("meta", {}).get("run_id")
    for path in best.parent.iterdir():
        if path == best or not pattern.fullmatch(path.name):
            continue
        try:
            other = read_checkpoint(path, map_location="meta").get("meta", {}).get("run_id")
        except UserError:
            continue
        if run_id is not None and other == run_id:
            path.unlink()
