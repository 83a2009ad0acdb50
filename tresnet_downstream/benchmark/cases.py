"""The cases that are measured: the valid combinations of network, task, type, form and image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from tresnet_downstream.benchmark.networks import NETWORKS, network_named
from tresnet_downstream.errors import UserError

TASKS = ("training", "inference")
TYPES = ("float32", "bfloat16", "float16")
FORMS = ("eager", "compiled", "fused")
# The value of `sizes` for the image size at which each network's published score was measured.
PUBLISHED = "published"
# If an image is smaller, its last feature map is a single value, and batch norm has no variance for one image.
_LEAST_SIZE = 64


@dataclass(frozen=True)
class Case:
    """One row of the result.

    Attributes:
        network: name of a network in `NETWORKS`.
        task: one of `TASKS`.
        type: data type, one of `TYPES`.
        form: one of `FORMS`.
        size: side of the square images, in pixels.
        batch_size: number of images in a step.
    """

    network: str
    task: str
    type: str
    form: str
    size: int
    batch_size: int

    @property
    def label(self) -> str:
        """The network and, unless it is eager, the form; unique within a group."""
        return self.network if self.form == "eager" else f"{self.network} {self.form}"

    def __str__(self) -> str:
        return f"{self.label}, {self.task} in {self.type} at {self.size}"

    def obstacle(self, device: str) -> str | None:
        """The reason why this case cannot be measured, or None if it can.

        Args:
            device: kind of the device, ``cpu`` or ``cuda``.
        """
        network = network_named(self.network)
        if self.type == "float16" and device == "cpu":
            return "float16 is measured only on GPUs; use bfloat16 on a CPU"
        if network.only_training and self.task == "inference":
            return "checkpointing changes only training"
        if self.form == "fused" and not network.ours:
            return "only this toolkit's TResNet can be fused"
        if self.form == "fused" and self.task == "training":
            return "a fused network supports only inference"
        return None


@dataclass(frozen=True)
class Group:
    """Cases that are timed in turn because they are compared with one another.

    Attributes:
        title: the settings that all cases share.
        cases: the cases that can be measured.
        obstacles: the other cases, with the reason why each cannot be measured.
    """

    title: str
    cases: tuple[Case, ...]
    obstacles: dict[Case, str]


def groups(
    networks: Sequence[str],
    tasks: Sequence[str],
    types: Sequence[str],
    forms: Sequence[str],
    sizes: Sequence[str],
    batch_size: int,
    device: str,
) -> list[Group]:
    """Returns every combination of the arguments; a combination that cannot be measured is listed with the reason.

    Args:
        networks: names of networks in `NETWORKS`; ``all`` selects every network.
        tasks: one or more of `TASKS`.
        types: one or more of `TYPES`.
        forms: one or more of `FORMS`.
        sizes: image sizes in pixels, or `PUBLISHED`.
        batch_size: number of images in a step.
        device: kind of the device, ``cpu`` or ``cuda``.

    Returns:
        one group for each combination of task, type and size.

    Raises:
        UserError: if a value is invalid, or if a network, task, type or form cannot be measured in any combination.
    """
    names = list(dict.fromkeys(NETWORKS if "all" in networks else networks))
    for name in names:
        network_named(name)
    for option, values, allowed in (("`tasks`", tasks, TASKS), ("`types`", types, TYPES), ("`forms`", forms, FORMS)):
        if unknown := [word for word in values if word not in allowed]:
            raise UserError(f"{option} {unknown[0]}: choose from {', '.join(allowed)}")
    if batch_size < 1:
        raise UserError(f"`batch_size` {batch_size}: give a whole number, at least 1")
    groups = []
    for task, type_, size in product(dict.fromkeys(tasks), dict.fromkeys(types), dict.fromkeys(sizes)):
        cases = [
            Case(name, task, type_, form, _pixels(size, name), batch_size)
            for name, form in product(names, dict.fromkeys(forms))
        ]
        obstacles = {case: reason for case in cases if (reason := case.obstacle(device))}
        title = f"{task}, {type_}, {'published sizes' if size == PUBLISHED else f'{size} x {size}'}"
        groups.append(Group(title, tuple(case for case in cases if case not in obstacles), obstacles))
    _require_measurable(groups)
    return groups


def _pixels(size: str, network: str) -> int:
    if size == PUBLISHED:
        if not (published := network_named(network).published):
            raise UserError(f"`sizes` {PUBLISHED}: {network} has no published score; give a size in pixels")
        return next(iter(published))
    if not size.isdecimal() or int(size) < _LEAST_SIZE:
        raise UserError(f"`sizes` {size}: give a size in pixels, at least {_LEAST_SIZE}, or {PUBLISHED}")
    return int(size)


def _require_measurable(groups: Sequence[Group]) -> None:
    measurable = {word for group in groups for case in group.cases for word in _words(case)}
    reasons: dict[str, list[str]] = {}
    for group in groups:
        for case, reason in group.obstacles.items():
            if not measurable.issuperset(_words(case)):
                reasons.setdefault(reason, []).append(case.network)
    if reasons:
        obstacles = (f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items())
        raise UserError(f"cannot be measured with these settings: {'; '.join(obstacles)}")


def _words(case: Case) -> tuple[str, ...]:
    return case.network, case.task, case.type, case.form
