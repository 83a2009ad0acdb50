"""Validates the raw and the averaged weights in one pass over the images."""

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, ValLoop
from torch import nn
from torch.utils.data import DataLoader

from tresnet_downstream.classification.datasets import Batch
from tresnet_downstream.registry import LOOPS
from tresnet_downstream.running.checkpoints import bare
from tresnet_downstream.running.hooks import weight_average
from tresnet_downstream.running.optimisation import autocast
from tresnet_downstream.running.validation import share_buffers


@LOOPS.register_module()
class ScoreLoop(ValLoop):
    """MMEngine's validation loop for several sets of weights, with one pass over the data.

    Args:
        runner: the runner.
        dataloader: the data loader of the images, or its config.
        evaluator: config of the metric.
        amp: ``bfloat16`` or ``float16`` for autocast; None for full precision.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader[object] | dict[str, object],
        evaluator: Evaluator | dict[str, object],
        amp: str | None = None,
    ) -> None:
        super().__init__(runner, dataloader, evaluator)
        self.amp = amp
        self.models: dict[str, nn.Module] = {}

    def run(self) -> dict[str, float | str]:
        """Scores the raw weights and, if there are any, the averaged weights."""
        averaged = weight_average(self.runner)
        self.models = {"raw": bare(self.runner.model)} | ({} if averaged is None else {"averaged": averaged})
        if averaged is not None:
            share_buffers(averaged)
        result: dict[str, float | str] = super().run()
        return result

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Batch) -> None:
        """Scores one batch."""
        self.runner.call_hook("before_val_iter", batch_idx=idx, data_batch=data_batch)
        data = bare(self.runner.model).data_preprocessor(data_batch)
        with autocast(data["inputs"].device.type, self.amp):
            scores = {name: model(data["inputs"], mode="predict").cpu() for name, model in self.models.items()}
        rows = [dict(zip(scores, row, strict=True)) for row in zip(*scores.values(), strict=True)]
        self.evaluator.process(data_samples=rows, data_batch=data_batch)
        self.runner.call_hook("after_val_iter", batch_idx=idx, data_batch=data_batch, outputs=rows)
