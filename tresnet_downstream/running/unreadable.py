"""Records the unreadable images of a training or a scoring in its folder."""

import json
from collections.abc import Iterator, Mapping

from mmengine.dist import all_gather_object, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.left_out import left_out_file, left_out_of, read_left_out, write_left_out

# Key of a batch, or of a detector's samples: a JSON object with the reason for each skipped image, by image name.
PASSED_OVER = "passed_over"


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Adds unreadable images to ``left_out_train.csv``, ``left_out_val.csv`` and ``left_out_test.csv``.

    With ``on_bad_image="skip"`` the data set replaces them in training and leaves them out in scoring, where the
    metric's attribute ``unreadable`` lists them. A resumed run keeps the earlier names.
    """

    def __init__(self) -> None:
        self.passed_over: dict[str, str] = {}
        self.written: dict[str, dict[str, str]] = {}
        self.before: dict[str, dict[str, str]] = {}

    def before_run(self, runner: Runner) -> None:
        """Reads the names that a resumed run wrote, before the runner overwrites the files."""
        if runner._resume and is_main_process():
            self.before = {split: read_left_out(runner.work_dir, left_out_file(split)) for split in ("train", "val")}

    def before_train(self, runner: Runner) -> None:
        """Writes the earlier unreadable images again."""
        for split, reasons in self.before.items():
            loader = getattr(getattr(runner, f"_{split}_loop"), "dataloader", None)
            unlabelled = left_out_of(getattr(loader, "dataset", None))
            unreadable = {name: reason for name, reason in reasons.items() if name not in unlabelled}
            self._write(runner.work_dir, split, unlabelled, unreadable)
        self.passed_over |= self.written.get("train", {})

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Collects the images that the data set of this process skipped."""
        for text in _passed_over(data_batch):
            self.passed_over |= json.loads(text)

    def after_train_epoch(self, runner: Runner) -> None:
        """Writes the unreadable training images of all processes."""
        everywhere = {name: reason for each in all_gather_object(self.passed_over) for name, reason in each.items()}
        self._write(runner.work_dir, "train", left_out_of(runner.train_dataloader.dataset), everywhere)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes the unreadable validation images."""
        self._write_scored("val", runner.work_dir, runner.val_evaluator, runner.val_dataloader)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes the unreadable test images beside the log, because the work dir may hold a training."""
        self._write_scored("test", runner.log_dir, runner.test_evaluator, runner.test_dataloader)

    def _write_scored(self, split: str, folder: str, evaluator: Evaluator, loader: DataLoader[object]) -> None:
        unreadable = next((m.unreadable for m in evaluator.metrics if hasattr(m, "unreadable")), None)
        if unreadable is not None:
            self._write(folder, split, left_out_of(loader.dataset), unreadable)

    def _write(self, folder: str, split: str, others: Mapping[str, str], unreadable: Mapping[str, str]) -> None:
        if not is_main_process() or unreadable == self.written.get(split, {}):
            return
        self.written[split] = dict(unreadable)
        write_left_out(folder, left_out_file(split), {**others, **unreadable})
        tell(f"{split}: {len(unreadable)} images cannot be read; {folder}/{left_out_file(split)} lists them")


def _passed_over(batch: object) -> Iterator[str]:
    """The JSON texts under the key ``PASSED_OVER`` in a batch, or in the samples of a detector's batch."""
    if not isinstance(batch, Mapping):
        return
    samples = batch.get("data_samples") or ()
    texts = [getattr(sample, "metainfo", {}).get(PASSED_OVER) for sample in samples]
    yield from filter(None, [*batch.get(PASSED_OVER, ()), *texts])
