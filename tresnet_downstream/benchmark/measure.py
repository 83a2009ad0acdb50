"""Runs the benchmark: measures speed, memory and the largest batch size of each case, group by group."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tresnet_downstream.benchmark.cases import Case, Group
from tresnet_downstream.benchmark.convolutions_alone import ConvolutionsAlone, Layer, Share, share_of_step
from tresnet_downstream.benchmark.devices import Device, largest_batch
from tresnet_downstream.benchmark.interleaved import Ratio, Timing, interleaved, require_repeats, speed_ratio
from tresnet_downstream.benchmark.networks import network_named
from tresnet_downstream.benchmark.runs import Step, dtype_of, prepared
from tresnet_downstream.errors import UserError

MIB = 2**20
_ALONE = "the convolutions alone"


@dataclass(frozen=True)
class Result:
    """Measurements of one case. A value is None if it does not apply to the case.

    Attributes:
        case: the measured case.
        group: title of the group in which the case was timed.
        timing: times of the steps.
        ratio: ratio of the images/s to those of the peer, computed for each repeat.
        kept: memory that the backward pass needs, in MiB per image.
        peak: peak memory in MiB per image, without the weights, their gradients and the image.
        largest_batch: largest number of images that fit in a step.
        macs: number of multiply-adds of the forward pass for one image.
        parameters: number of parameters.
        alone: seconds that the step's convolutions and linear layers took when each ran by itself, for each repeat, in
            turn with the steps of the group. Also None for a network with other matrix products.
        obstacle: the reason why the case was not measured.
    """

    case: Case
    group: str
    timing: Timing | None = None
    ratio: Ratio | None = None
    kept: float | None = None
    peak: float | None = None
    largest_batch: int | None = None
    macs: int | None = None
    parameters: int | None = None
    alone: tuple[float, ...] | None = None
    obstacle: str | None = None

    @property
    def images_per_second(self) -> float | None:
        """Median over the repeats."""
        return None if self.timing is None else self.case.batch_size / self.timing.median

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """First and third quartile over the repeats, in images/s."""
        if self.timing is None:
            return None
        short, long = self.timing.quartiles
        return self.case.batch_size / long, self.case.batch_size / short

    @property
    def share(self) -> Share | None:
        """Share of the step's time that its convolutions take if they run alone; None if it is unknown."""
        if self.timing is None or self.alone is None:
            return None
        return share_of_step(self.alone, self.timing.seconds)

    @property
    def why_share_is_unknown(self) -> str | None:
        """The reason why `share` is unknown; None if it is known or the case was not timed."""
        if self.timing is None or self.share is not None:
            return None
        if self.alone is None:
            return "it has matrix products besides its convolutions and linear layers"
        return (
            f"the convolutions alone took {np.median(self.alone):.3g} s, the step {self.timing.median:.3g} s: either "
            "the machine was busy (measure again) or the step uses a faster implementation of them"
        )

    @property
    def top1(self) -> float | None:
        """Published score at the image size of the case, in percent."""
        published = network_named(self.case.network).published.get(self.case.size)
        return None if published is None else published.percent


def measure(
    groups: Sequence[Group],
    device: Device,
    repeats: int = 9,
    peer: str | None = None,
    with_largest_batch: bool = False,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Result]:
    """Measures group after group. Within a group, the steps and their convolutions alone are timed in turn.

    Args:
        groups: groups of cases, as returned by `cases.groups`.
        device: device that runs the steps.
        repeats: number of timed steps of each case, after one warm-up step.
        peer: name of the network by whose speed in eager form every speed is divided; None for no ratios.
        with_largest_batch: whether to find the largest batch of each case that is not compiled.
        tell: function that is called with each line of progress.

    Returns:
        one result for each case of each group, also for those that cannot be measured.

    Raises:
        UserError: if the peer is not among the networks, a batch does not fit into memory (the message states a batch
            size that does), a compiler is missing, or ``repeats`` is less than 1.
    """
    require_repeats(repeats)
    cases = [case for group in groups for case in group.cases]
    if peer and not any(_is_peer(case, peer) for case in cases):
        raise UserError(f"`peer` {peer}: is not among the networks that are measured in eager form; add it to them")
    if any(case.form == "compiled" for case in cases) and (lacking := device.missing_compiler()):
        raise UserError(f"`forms` compiled needs {lacking}")
    results = []
    for group in groups:
        try:
            results += _measure_group(group, device, repeats, peer, with_largest_batch, tell)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{group.title}: each network fits into memory alone, but not together with the others; measure fewer "
                "networks at a time"
            ) from error
        results += [Result(case, group.title, obstacle=reason) for case, reason in group.obstacles.items()]
    return results


def _is_peer(case: Case, peer: str | None) -> bool:
    return case.network == peer and case.form == "eager"


def _measure_group(
    group: Group,
    device: Device,
    repeats: int,
    peer: str | None,
    with_largest_batch: bool,
    tell: Callable[[str], object],
) -> list[Result]:
    if not group.cases:
        return []
    # Batches are checked with one network in memory, before the networks of the group share the memory.
    largest = {case: _checked_batch(case, device, with_largest_batch, tell) for case in group.cases}
    steps, results = [], []
    for case in group.cases:
        tell(f"{case}: measuring the memory")
        step = prepared(case, device)
        results.append(_memory(step, group.title, largest[case]))
        steps.append(step)
    tell(f"{group.title}: choosing operators for the convolutions alone")
    alone = ConvolutionsAlone([step.layers for step in steps], group.cases[0].task, dtype_of(group.cases[0]), device)
    timings = interleaved(
        {_ALONE: alone, **{step.case.label: step for step in steps}},
        repeats,
        synchronise=device.synchronise,
        on_repeat=lambda done: tell(f"{group.title}: round {done} of {repeats + 1}"),
    )
    for place, (step, result) in enumerate(zip(steps, results, strict=True)):
        timing = timings[result.case.label]
        ratio = speed_ratio(timing, timings[peer]) if peer in timings else None
        # The warm-up round does not count.
        seconds = alone.seconds(step.layers)[-repeats:] if _has_only(step, step.layers) else None
        results[place] = replace(result, timing=timing, ratio=ratio, alone=seconds)
    return results


def _has_only(step: Step, layers: Mapping[Layer, int]) -> bool:
    """Whether these layers have all multiply-adds of a step's forward pass."""
    return sum(count * layer.macs for layer, count in layers.items()) == step.macs * step.case.batch_size


def _checked_batch(case: Case, device: Device, with_largest_batch: bool, tell: Callable[[str], object]) -> int | None:
    """Checks that the batch of the case fits into memory; returns the largest batch if ``with_largest_batch`` is set.

    Raises:
        UserError: if the batch of the case does not fit into memory.
    """
    # torch would compile the network again for every batch size. Therefore, the eager form is run for the compiled one.
    probed = replace(case, form="eager") if case.form == "compiled" else case
    step = prepared(replace(probed, batch_size=1), device)
    fits = device.fitting(lambda count: step.run(*step.batch(count)), step.needed_bytes)
    if not fits(case.batch_size):
        tell(f"{case}: a batch of {case.batch_size} does not fit")
        fitting = largest_batch(fits, case.batch_size)
        advice = f"{fitting} fit: give `batch_size` {fitting}" if fitting else "nor does a single image"
        raise UserError(f"{case}: {case.batch_size} images do not fit into the {device.kind}'s memory; {advice}")
    if not with_largest_batch or case.form == "compiled":
        return None
    tell(f"{case}: searching for the largest batch")
    return largest_batch(fits)


def _memory(step: Step, group: str, largest: int | None) -> Result:
    case = step.case
    step()  # the first step compiles the network, and makes allocations that later steps do not repeat
    bytes_kept = step.bytes_kept()
    return Result(
        case,
        group,
        kept=None if bytes_kept is None else bytes_kept / MIB / case.batch_size,
        peak=step.peak_bytes() / MIB / case.batch_size,
        largest_batch=largest,
        macs=step.macs,
        parameters=sum(parameter.numel() for parameter in step.network.parameters()),
    )
