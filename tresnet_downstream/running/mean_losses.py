"""Logged losses as means over all processes."""

from collections.abc import Mapping

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.runner import LogProcessor, Runner

from tresnet_downstream.registry import LOG_PROCESSORS, SCOPE


@LOG_PROCESSORS.register_module()
class MeanLossProcessor(LogProcessor):
    """MMEngine's ``LogProcessor``, except that training losses are means over all processes.

    MMEngine logs only the losses of the first process, which sees a part of each batch.
    """

    def _collect_scalars(
        self, custom_cfg: list[dict[str, object]], runner: Runner, mode: str, reserve_prefix: bool = False
    ) -> dict[str, float]:
        tag: dict[str, float] = super()._collect_scalars(custom_cfg, runner, mode, reserve_prefix)
        # All processes train the same number of batches and log after the same ones.
        names = sorted(name for name in tag if "loss" in name) if mode == "train" and get_world_size() > 1 else []
        if names:
            all_reduce(means := torch.tensor([float(tag[name]) for name in names], dtype=torch.float64), "mean")
            tag.update(zip(names, means.tolist(), strict=True))
        return tag


def with_mean_losses(log_processor: LogProcessor | Mapping[str, object]) -> LogProcessor | Mapping[str, object]:
    """The config of a log processor, with :class:`MeanLossProcessor` instead of MMEngine's ``LogProcessor``."""
    if not isinstance(log_processor, Mapping):
        return log_processor
    if str(log_processor.get("type", "LogProcessor")).removeprefix("mmengine.") != "LogProcessor":
        return log_processor
    return {**log_processor, "type": f"{SCOPE}.{MeanLossProcessor.__name__}"}
