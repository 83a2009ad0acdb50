"""The cases that are measured: the valid combinations of network, task, type, form and image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from tresnet_downstream.benchmark.networks import NETWORKS, network_named
from tresnet_downstream.errors import UserError

TASKS = ("training", "inference")
TYPES = ("float32", "bfloat16", "float16")
FORMS = ("eager", "compiled", "fused")
# The size that each network's published score was measured at.
PUBLISHED = "published"
# Below it the last feature map of one picture is a single value, of which batch norm has no variance.
_LEAST_SIZE = 64


@dataclass(frozen=True)
class Case:
    """One row of the result.

    Attributes:
        network: a name of `NETWORKS`.
        task: of `TASKS`.
        type: of `TYPES`.
        form: of `FORMS`.
        size: side of the square pictures, in pixels.
        batch_size: pictures in a step.
    """

    network: str
    task: str
    type: str
    form: str
    size: int
    batch_size: int

    @property
    def label(self) -> str:
        """Network and form, which are alone within a group."""
        return self.network if self.form == "eager" else f"{self.network} {self.form}"

    def __str__(self) -> str:
        return f"{self.label}, {self.task} in {self.type} at {self.size}"

    def obstacle(self, device: str) -> str | None:
        """Why this is not measured on a ``device`` of kind ``cpu`` or ``cuda``, if so."""
        network = network_named(self.network)
        if self.type == "float16" and device == "cpu":
            return "float16 is for GPUs; a CPU takes bfloat16"
        if network.only_training and self.task == "inference":
            return "checkpointing changes training alone"
        if self.form == "fused" and not network.ours:
            return "only this toolkit's TResNet can be fused"
        if self.form == "fused" and self.task == "training":
            return "a fused network is for inference"
        return None


@dataclass(frozen=True)
class Group:
    """Cases that are timed in turn, since they are compared with one another.

    Attributes:
        title: what they have in common.
        cases: those that run.
        obstacles: why others do not.
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
    """Every combination; one that makes no sense is listed with its reason.

    Args:
        networks: names of `NETWORKS`; ``all`` stands for every one.
        tasks: of `TASKS`.
        types: of `TYPES`.
        forms: of `FORMS`.
        sizes: in pixels, or `PUBLISHED`.
        batch_size: pictures in a step.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: for what is unknown, and for a network, task, type or form that no combination can run.
    """
    names = list(dict.fromkeys(NETWORKS if "all" in networks else networks))
    for name in names:
        network_named(name)
    for option, values, known in (("`tasks`", tasks, TASKS), ("`types`", types, TYPES), ("`forms`", forms, FORMS)):
        if unknown := [word for word in values if word not in known]:
            raise UserError(f"{option} {unknown[0]}: choose from {', '.join(known)}")
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
    _refuse_what_never_runs(groups)
    return groups


def _pixels(size: str, network: str) -> int:
    if size == PUBLISHED:
        if not (published := network_named(network).published):
            raise UserError(f"`sizes` {PUBLISHED}: no score of {network} is known; give a size in pixels")
        return next(iter(published))
    if not size.isdecimal() or int(size) < _LEAST_SIZE:
        raise UserError(f"`sizes` {size}: give pixels, at least {_LEAST_SIZE}, or the word {PUBLISHED}")
    return int(size)


def _refuse_what_never_runs(groups: Sequence[Group]) -> None:
    runs = {word for group in groups for case in group.cases for word in _words(case)}
    reasons: dict[str, list[str]] = {}
    for group in groups:
        for case, reason in group.obstacles.items():
            if not runs.issuperset(_words(case)):
                reasons.setdefault(reason, []).append(case.network)
    if reasons:
        obstacles = (f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items())
        raise UserError(f"cannot be measured as asked: {'; '.join(obstacles)}")


def _words(case: Case) -> tuple[str, ...]:
    return case.network, case.task, case.type, case.form
