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
    """What was measured of one case; None where it does not apply.

    Attributes:
        case: what was measured.
        group: the title of the group that it was timed in.
        timing: of its steps.
        ratio: images/s as a multiple of the peer's, repeat by repeat.
        kept: MiB for each picture that the backward pass needs.
        peak: MiB for each picture, without weights, their gradients and the picture.
        largest_batch: the most pictures that fit a step.
        macs: multiply-adds of the forward pass for a picture.
        parameters: how many.
        alone: seconds that the step's convolutions and linear layers took when each was run by itself, repeat by
            repeat, in turn with the group's steps; None as well for a network with products of another kind.
        obstacle: why it was not measured.
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
        """The median of the repeats."""
        return None if self.timing is None else self.case.batch_size / self.timing.median

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The first and third of the repeats, in images/s."""
        if self.timing is None:
            return None
        short, long = self.timing.quartiles
        return self.case.batch_size / long, self.case.batch_size / short

    @property
    def share(self) -> Share | None:
        """The part of the step's time that the convolutions alone take; None where it is unknown."""
        if self.timing is None or self.alone is None:
            return None
        return share_of_step(self.alone, self.timing.seconds)

    @property
    def why_share_is_unknown(self) -> str | None:
        """Why there is no `share` of what was timed, if so."""
        if self.timing is None or self.share is not None:
            return None
        if self.alone is None:
            return "it has products other than convolutions and linear layers"
        return (
            f"the convolutions alone took {np.median(self.alone):.3g} s, the step {self.timing.median:.3g} s: either "
            "the machine was busy (measure again) or the step has a faster implementation of them"
        )

    @property
    def top1(self) -> float | None:
        """The published score at this size, in percent."""
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
    """Measures group after group; within a group the steps take turns, and their convolutions alone with them.

    Args:
        groups: what `cases.groups` gives.
        device: where to run.
        repeats: timed steps of each case, after one that warms up.
        peer: the network whose eager form every speed is divided by; none if None.
        with_largest_batch: also finds the largest batch of each case, compiled ones excepted.
        tell: told in a line what is going on.

    Raises:
        UserError: for a peer that is not among the networks, a batch that does not fit (the message says which one
            does) and a compiler that is missing.
    """
    require_repeats(repeats)
    cases = [case for group in groups for case in group.cases]
    if peer and not any(_is_peer(case, peer) for case in cases):
        raise UserError(f"`peer` {peer}: it is not among the eager networks that are measured; name it as one of them")
    if any(case.form == "compiled" for case in cases) and (lacking := device.missing_compiler()):
        raise UserError(f"`forms` compiled needs {lacking}")
    results = []
    for group in groups:
        try:
            results += _measure_group(group, device, repeats, peer, with_largest_batch, tell)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{group.title}: every batch fits, but not beside the other networks; measure fewer of them at a time"
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
    # One network at a time, before those that are timed together share the memory.
    largest = {case: _checked_batch(case, device, with_largest_batch, tell) for case in group.cases}
    steps, results = [], []
    for case in group.cases:
        tell(f"{case}: memory")
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
        # Without the round that warmed up.
        seconds = alone.seconds(step.layers)[-repeats:] if _has_only(step, step.layers) else None
        results[place] = replace(result, timing=timing, ratio=ratio, alone=seconds)
    return results


def _has_only(step: Step, layers: Mapping[Layer, int]) -> bool:
    """Whether these layers are all the multiply-adds of a step's forward pass."""
    return sum(count * layer.macs for layer, count in layers.items()) == step.macs * step.case.batch_size


def _checked_batch(case: Case, device: Device, with_largest_batch: bool, tell: Callable[[str], object]) -> int | None:
    """The largest batch if asked for.

    Raises:
        UserError: if the case's own does not fit.
    """
    # Every new batch size would be compiled anew, so the plain form answers for the compiled one.
    probed = replace(case, form="eager") if case.form == "compiled" else case
    step = prepared(replace(probed, batch_size=1), device)
    fits = device.fitting(lambda count: step.run(*step.batch(count)), step.needed_bytes)
    if not fits(case.batch_size):
        tell(f"{case}: a batch of {case.batch_size} does not fit")
        fitting = largest_batch(fits, case.batch_size)
        advice = f"{fitting} do: `batch_size` {fitting}" if fitting else "nor does a single one"
        raise UserError(f"{case}: {case.batch_size} pictures do not fit the {device.kind}'s memory; {advice}")
    if not with_largest_batch or case.form == "compiled":
        return None
    tell(f"{case}: largest batch")
    return largest_batch(fits)


def _memory(step: Step, group: str, largest: int | None) -> Result:
    case = step.case
    step()  # what is allocated once, at the first step, and compiled then
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
