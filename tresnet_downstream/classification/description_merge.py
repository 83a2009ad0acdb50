"""Merges the description in a checkpoint into a config. The description takes precedence, except over options."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from mmengine.config import Config

from tresnet_downstream.classification.descriptions import NOT_DESCRIBED, Description, input_size, resized
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.provenance import without_start

_PIPELINE = "val_dataloader.dataset.pipeline"
_NOT_SET = "not set"


def merge_description(config: Config, description: Description, set_here: Set[str]) -> list[str]:
    """Replaces the model and the pipeline of a config by those of a checkpoint, except for keys that options set.

    Args:
        config: a config with resolved references, which is changed in place.
        description: the description in the checkpoint.
        set_here: keys of the config that options set, from :func:`places_set_by`.

    Returns:
        At most two lines: the differences between config and checkpoint, and those between options and checkpoint.
    """
    merge = _Merge(set_here)
    if description.classifier is not None:
        in_config = {"head": None, **without_start(config.model)}
        for key in NOT_DESCRIBED:
            in_config.pop(key, None)
        loss = {"loss": config.model.loss} if config.model.get("loss") else {}
        config.model = {**merge.value(description.classifier, in_config, "model"), **loss}
    dataset = config.val_dataloader.dataset
    if description.pipeline and "pipeline" in dataset:
        stored, steps = list(description.pipeline), list(plain(dataset.pipeline))
        at_new_size = list(resized(stored, config.image_size)) if "image_size" in set_here else stored
        if _types(stored) != _types(steps) and _differ(at_new_size, stored):
            # The transforms differ, so they are not merged. The size that the user set is put into the stored ones.
            dataset.pipeline = at_new_size
            merge.overrides.append(("image_size", input_size(stored), config.image_size))
        else:
            dataset.pipeline = merge.value(stored, steps, _PIPELINE)
    notes = []
    if merge.differences:
        text = _listed(
            f"{place} is {_shown(stored)} ({_shown(in_config)} in the config)"
            for place, stored, in_config in merge.differences
        )
        notes.append(f"note: values of the checkpoint are used where the config differs: {text}")
    if merge.overrides:
        text = _listed(
            f"{place} is {_shown(in_config)} ({_shown(stored)} in the checkpoint)"
            for place, stored, in_config in merge.overrides
        )
        notes.append(f"note: values of the options are used where the checkpoint differs: {text}")
    return notes


class _Merge:
    """Merges values: those of the checkpoint, or of the config if an option set them.

    Args:
        set_here: keys of the config that options set.

    Attributes:
        differences: key, stored value and value of the config, where they differ and the stored value is used.
        overrides: the same, where the value of the config is used.
    """

    def __init__(self, set_here: Set[str]) -> None:
        self.set_here = set_here
        self.differences: list[tuple[str, object, object]] = []
        self.overrides: list[tuple[str, object, object]] = []

    def value(self, stored: Any, in_config: Any, place: str) -> Any:
        """The merged value of a key, such as ``model.head``."""
        set_below = any(other.startswith(f"{place}.") for other in self.set_here)
        if place in self.set_here or f"{place}.type" in self.set_here:
            return self._option(stored, in_config, place)
        if isinstance(stored, Mapping) and isinstance(in_config, Mapping):
            return self._mapping(stored, in_config, place)
        if _are_alike(stored, in_config) and (set_below or any(_types(stored))):
            pairs = zip(stored, in_config, strict=True)
            return [self.value(*pair, f"{place}.{number}") for number, pair in enumerate(pairs)]
        if set_below:
            return self._option(stored, in_config, place)
        # A config without a number of classes takes it from the data.
        left_to_data = place.endswith(".num_classes") and in_config in (None, _NOT_SET)
        if _differ(stored, in_config) and not left_to_data:
            self.differences.append((place, stored, in_config))
        return stored

    def _mapping(self, stored: Mapping[str, object], in_config: Mapping[str, object], place: str) -> dict[str, object]:
        if stored.get("type") != in_config.get("type"):
            # The types differ, so arguments of the config are used only if an option set them.
            self.differences.append((place, stored, in_config))
            set_keys = [key for key in in_config if f"{place}.{key}" in self.set_here]
            in_config = {**stored, **{key: in_config[key] for key in set_keys}}
        merged = {
            key: self.value(stored.get(key, _NOT_SET), in_config.get(key, _NOT_SET), f"{place}.{key}")
            for key in dict.fromkeys([*stored, *in_config])
        }
        return {key: value for key, value in merged.items() if value is not _NOT_SET}

    def _option(self, stored: object, in_config: object, place: str) -> object:
        if _differ(stored, in_config):
            self.overrides.append((place, stored, in_config))
        return in_config


def _are_alike(one: object, other: object) -> bool:
    """Whether both are lists of the same length, whose components have the same types."""
    if not isinstance(one, list | tuple) or not isinstance(other, list | tuple):
        return False
    return len(one) == len(other) and _types(one) == _types(other)


def _types(steps: Sequence[object]) -> list[object]:
    """The ``type`` of each component; None for other values."""
    return [step.get("type") if isinstance(step, Mapping) else None for step in steps]


def _differ(one: object, other: object) -> bool:
    """Whether two plain values differ. Lists and tuples with the same items are equal."""
    return bool(_as_lists(one) != _as_lists(other))


def _as_lists(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _as_lists(item) for key, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: object) -> str:
    """A short text for a value. Components are shown by their types."""
    if isinstance(value, Mapping) and "type" in value:
        return str(value["type"])
    if isinstance(value, list | tuple) and value and all(_types(value)):
        return f"({', '.join(map(str, _types(value)))})"
    return _NOT_SET if value is _NOT_SET else repr(value)


def _listed(texts: Iterable[str], most: int = 4) -> str:
    items = [text.replace(_PIPELINE, "val_pipeline") for text in texts]
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more
