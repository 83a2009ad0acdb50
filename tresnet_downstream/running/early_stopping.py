"""Early stopping: a training ends when its best score has not improved for ``patience`` validations.

The decision depends only on the scores of the validations so far. Checkpoints hold these scores. A checkpoint is
written before its validation, so ``last_validation.json`` holds them too, and a resumed run reads both.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mmengine.config import Config
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running import folders
from tresnet_downstream.running.loops import TrainLoop, training_loop
from tresnet_downstream.running.resumed_state import Checkpoint


class BestScore(NamedTuple):
    """The score by which the best checkpoint is chosen.

    Attributes:
        name: name of the score in printed lines and messages.
        value: the score in the unit of printed lines, which is percent for the scores of this package.
        sign: 1 if a higher score is better, otherwise -1.
    """

    name: str
    value: float
    sign: int


@runtime_checkable
class ChoosesBest(Protocol):
    """A hook that keeps the best checkpoint."""

    def best_score(self, metrics: dict[str, float]) -> BestScore | None:
        """The score that the hook compares, from the metrics of a validation; None if it compares none."""


class Validated(NamedTuple):
    """A validation of a training: epochs (or iterations, in a loop over iterations) before it, and its score."""

    place: float
    score: float


def validations_waited(scores: Sequence[float], sign: int, min_delta: float) -> int:
    """The number of scores since the last one that improved on the best before it by more than ``min_delta``.

    Args:
        scores: oldest first; NaN is never an improvement.
        sign: 1 if higher is better, otherwise -1.
        min_delta: smallest improvement that counts, 0 or more.

    Examples:
        >>> validations_waited([10.0, 12.0, 12.4, 11.0], 1, 0.5)
        2
    """
    best, waited = -math.inf, 0
    for score in scores:
        if sign * score > best + min_delta:
            best, waited = sign * score, 0
        else:
            waited += 1
    return waited


@HOOKS.register_module()
class PatienceHook(Hook):
    """Ends a training after ``patience`` validations without an improved score.

    If a validation scores raw and averaged weights, the better score is used.

    Args:
        patience: number of validations without an improvement; None turns early stopping off.
        min_delta: smallest improvement that counts, in the unit of the score, such as percent.

    Attributes:
        validated: the validations so far.

    Raises:
        UserError: if ``patience`` is not a whole number of at least 1, or ``min_delta`` is below 0.
    """

    # After the hook that keeps the best checkpoint, and before the note of the validation is written.
    priority = "VERY_LOW"

    def __init__(self, patience: int | None = None, min_delta: float = 0.0) -> None:
        if patience is not None and (type(patience) is not int or patience < 1):
            raise UserError(f"patience={patience!r}: give a number of validations, at least 1, or None")
        if type(min_delta) not in (int, float) or not 0 <= min_delta < math.inf:
            raise UserError(f"min_delta={min_delta!r}: give a number, at least 0")
        self.patience, self.min_delta = patience, min_delta
        self.validated: list[Validated] = []
        self.name, self.sign = "score", 1

    @classmethod
    def of(cls, config: Config) -> "PatienceHook":
        """The hook for ``patience`` and ``min_delta`` of a config."""
        return cls(config.get("patience"), config.get("min_delta", 0.0))

    def before_run(self, runner: Runner) -> None:
        """Checks that there is a score to compare.

        Raises:
            UserError: if the training does not validate, or keeps no best checkpoint.
        """
        if self.patience is None or training_loop(runner) is None:
            return
        if runner._val_loop is None:
            raise UserError(
                f"patience={self.patience}: needs a validation; set val_dataloader, val_cfg and val_evaluator"
            )
        if not any(isinstance(hook, ChoosesBest) and getattr(hook, "save_best", None) for hook in runner.hooks):
            raise UserError(
                f"patience={self.patience}: needs the score that chooses the best checkpoint; set "
                "default_hooks.checkpoint.save_best"
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Restores the scores of a resumed run."""
        if getattr(runner, "_resuming", False):
            self._take_up(checkpoint["meta"].get("validated"))

    def before_train(self, runner: Runner) -> None:
        """Adds the scores of validations after the checkpoint; trains nothing if ``patience`` is already used up."""
        loop = runner.train_loop
        if loop.iter == 0:
            return
        notes = [folders.last_validation(runner.work_dir).get("validated")]
        broadcast_object_list(notes)  # the other processes may see another disk
        self._take_up(notes[0])
        self.validated = [each for each in self.validated if each.place <= _place(loop)]
        if self._has_waited():
            loop.stop_training = True
            tell(f"nothing is left to train: {self._reason()}; increase patience to continue")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Adds the score, and ends the training if ``patience`` is used up."""
        loop = training_loop(runner)
        if loop is None or not metrics:
            return
        scores = (hook.best_score(metrics) for hook in runner.hooks if isinstance(hook, ChoosesBest))
        score = next(filter(None, scores), None)
        if score is None:
            return
        self.name, self.sign = score.name, score.sign
        self._add([Validated(_place(loop), float(score.value))])
        if self._has_waited() and loop.iter < loop.max_iters:
            loop.stop_training = True
            if isinstance(loop, TrainLoop):
                loop.stop_is_reported = True
            tell(f"stopped at {_place_text(loop)}: {self._reason()}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Adds the scores so far."""
        checkpoint["meta"]["validated"] = self.plain()

    def plain(self) -> dict[str, object]:
        """The scores so far as plain data."""
        several = [[each.place, None if math.isnan(each.score) else each.score] for each in self.validated]
        return {"score": self.name, "sign": self.sign, "validations": several}

    def _take_up(self, stored: Any) -> None:
        """Adds the scores of :meth:`plain`; does nothing if they are missing (older releases) or damaged."""
        try:
            name, sign = str(stored["score"]), stored["sign"]
            rows = [(place, math.nan if score is None else score) for place, score in stored["validations"]]
            several = [Validated(float(place), float(score)) for place, score in rows]
        except (KeyError, TypeError, ValueError):
            return
        if sign in (1, -1):
            self.name, self.sign = name, sign
            self._add(several)

    def _add(self, several: Sequence[Validated]) -> None:
        places = {each.place: each for each in (*self.validated, *several)}
        self.validated = [places[place] for place in sorted(places)]

    def _waited(self) -> int:
        return validations_waited([each.score for each in self.validated], self.sign, self.min_delta)

    def _has_waited(self) -> bool:
        return self.patience is not None and self._waited() >= self.patience

    def _reason(self) -> str:
        waited, best = self._waited(), max((self.sign * each.score for each in self.validated), default=math.nan)
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        count = "1 validation" if waited == 1 else f"{waited} validations"
        return f"no better {self.name}{by} for {count} (best {self.sign * best:.2f})"


def validated_so_far(runner: Runner) -> dict[str, object]:
    """The scores of a training's validations, for ``last_validation.json``."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, PatienceHook)), None)
    return {} if hook is None else {"validated": hook.plain()}


def _place(loop: BaseLoop) -> float:
    """Epochs trained, with fractions, so that it does not depend on the batch size; iterations in a loop over them."""
    if isinstance(loop, EpochBasedTrainLoop):
        return float(loop.iter / len(loop.dataloader))
    return float(loop.iter)


def _place_text(loop: BaseLoop) -> str:
    if not isinstance(loop, TrainLoop):
        return f"iteration {loop.iter}"
    return f"epoch {loop.current_epoch}" if loop.val_steps is None else f"step {loop.step} (epoch {loop.current_epoch})"
