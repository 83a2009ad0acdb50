"""The images that a training finds unreadable, named in its folder."""

import json
from typing import Any

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tresnet_downstream.classification.metrics import MultilabelMetric
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.left_out import left_out_file, left_out_of, read_left_out, write_left_out


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Adds the images that cannot be read to ``left_out_train.csv`` and ``left_out_val.csv``.

    The data set passes over them with ``on_bad_image="skip"`` in training, and leaves them out in validation. A resumed
    run keeps the names from before.
    """

    def __init__(self) -> None:
        self.passed_over: dict[str, str] = {}
        self.written: dict[str, dict[str, str]] = {}
        self.before: dict[str, dict[str, str]] = {}

    def before_run(self, runner: Runner) -> None:
        """Reads the names that a resumed run has written, before the runner writes the files anew."""
        if runner._resume and is_main_process():
            self.before = {split: read_left_out(runner.work_dir, left_out_file(split)) for split in ("train", "val")}

    def before_train(self, runner: Runner) -> None:
        """Writes the unreadable ones among them again."""
        for split, reasons in self.before.items():
            dataset = getattr(runner, f"{split}_dataloader").dataset
            unlabelled = left_out_of(dataset)
            unreadable = {name: reason for name, reason in reasons.items() if name not in unlabelled}
            self._write(runner, split, dataset, unreadable)
        self.passed_over |= self.written.get("train", {})

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None, outputs: Any = None
    ) -> None:
        """Collects the images that the samples of this process passed over."""
        for text in filter(None, (data_batch or {}).get("passed_over", ())):
            self.passed_over |= json.loads(text)

    def after_train_epoch(self, runner: Runner) -> None:
        """Writes those of all processes."""
        everywhere = {name: reason for each in all_gather_object(self.passed_over) for name, reason in each.items()}
        self._write(runner, "train", runner.train_dataloader.dataset, everywhere)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Writes those of the validation data."""
        metric = next((m for m in runner.val_evaluator.metrics if isinstance(m, MultilabelMetric)), None)
        if metric is not None:
            self._write(runner, "val", runner.val_dataloader.dataset, metric.unreadable)

    def _write(self, runner: Runner, split: str, dataset: Any, unreadable: dict[str, str]) -> None:
        if not is_main_process() or unreadable == self.written.get(split, {}):
            return
        self.written[split] = dict(unreadable)
        write_left_out(runner.work_dir, left_out_file(split), left_out_of(dataset) | unreadable)
        tell(f"{split}: {len(unreadable)} images cannot be read: named in {runner.work_dir}/{left_out_file(split)}")
