"""What a config does about rare classes, from the labels of its training data: weights, sampling, bias, description."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor

from tresnet_downstream.classification.class_labels import ClassLabels, class_labels_of, told_class_labels
from tresnet_downstream.classification.class_weights import (
    BIASES,
    class_weights,
    initial_biases,
    set_initial_bias,
    weights_text,
)
from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.frequency_groups import require_cutoffs
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import MODELS, takes_argument
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.resuming import weights_setting


@dataclass(frozen=True, eq=False)
class ClassBalance:
    """The keys ``class_weights``, ``initial_bias`` and ``sampling`` of a config, with the labels that they are about.

    Attributes:
        config: the values of the keys.
        labels: of the training data; None if the data set does not tell them and no key needs them.
        weights: of the classes in the loss, (C,); None without.
    """

    config: Mapping[str, Any]
    labels: ClassLabels | None
    weights: NDArray[np.float64] | None

    @classmethod
    def of(cls, config: Config, dataset: Any) -> "ClassBalance":
        """Reads the keys.

        Raises:
            UserError: for a value that a key may not have, a loss that takes no weights, and a data set that does not
                tell its labels to a key that needs them.
        """
        kind, bias = weights_setting(config), config.get("initial_bias")
        require_cutoffs(config.get("frequency_cutoffs"))
        if bias is not None and bias not in BIASES:
            raise UserError(f"initial_bias={bias!r}: choose {' or '.join(map(repr, BIASES))}, or None")
        sampler = (config.get("train_dataloader") or {}).get("sampler") or {}
        values = {
            "class_weights": kind,
            "initial_bias": bias,
            "sampling": sampler.get("sampling"),
            "frequency_cutoffs": config.get("frequency_cutoffs"),
        }
        needing = [key for key in ("class_weights", "initial_bias", "sampling") if values[key] is not None]
        labels = class_labels_of(dataset, needing[0]) if needing else told_class_labels(dataset)
        weights = None
        if kind is not None:
            assert labels is not None
            weights = class_weights(kind, labels, config.get("effective_beta", 0.999))
        return cls(values, labels, weights)

    def weighted(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """The config of the model, whose loss has the weights.

        Raises:
            UserError: for a loss that takes none, or has some.
        """
        loss = model.get("loss")
        if self.weights is None or not loss:
            return model
        kind = MODELS.get(str(loss.get("type")))
        if kind is not None and not takes_argument(kind, "class_weights"):
            raise UserError(
                f"class_weights: {kind.__name__} takes no argument `class_weights`, the C factors of the classes; give "
                "it one, or leave class_weights out"
            )
        if loss.get("class_weights") is not None:
            raise UserError("class_weights: model.loss.class_weights is set too; leave one of them out")
        return {**model, "loss": {**loss, "class_weights": self.weights.tolist()}}

    def set_bias(self, model: ImageClassifier, config: Config, before: Mapping[str, Tensor]) -> None:
        """Gives the head its first bias, unless its weights came from a file, and tells which.

        Args:
            model: the classifier, with the weights that training starts from.
            config: of the training.
            before: the head's state dict before any file was loaded.

        Raises:
            UserError: for a head that has no bias of the classes.
        """
        if self.config["initial_bias"] is None:
            return
        assert self.labels is not None
        if config.model.get("init_cfg"):
            tell("note: initial_bias is not applied: model.init_cfg names the weights that the head starts from")
            return
        if any(not torch.equal(before[name], value) for name, value in model.head.state_dict().items()):
            tell("note: initial_bias is not applied: the head's weights come from a file, and its bias with them")
            return
        biases = initial_biases(self.labels, model.multi_label)
        set_initial_bias(model.head, biases)
        shares = 1 / (1 + np.exp(-biases)) if model.multi_label else np.exp(biases) / np.exp(biases).sum()
        text = f"initial_bias: the head begins with probabilities from {shares.min():.3g} to {shares.max():.3g}"
        if never := self.labels.classes_without_image():
            text += f"; {never}, which no training image shows, as if half an image did"
        tell(text)

    def told(self, loader: Any) -> Iterator[str]:
        """Lines that say what is done; the loader is that of the training."""
        if self.weights is not None:
            assert self.labels is not None
            yield weights_text(self.config["class_weights"], self.weights, self.labels)
        visits = getattr(loader.sampler, "visits", None)
        if visits is not None:
            yield visits.told
            if self.weights is not None:
                yield "note: sampling and class_weights both raise rare classes; their effects multiply"

    def settings(self) -> dict[str, Any]:
        """What a resumed run is compared with: changed labels change the batches of an epoch, or the weights."""
        if self.labels is None:
            return {}
        uses = {"training labels": self.config["sampling"], "labels of class_weights": self.config["class_weights"]}
        return {name: self.labels.digest() for name, value in uses.items() if value is not None}

    def description(self, loader: Any) -> dict[str, Any]:
        """What checkpoints say, as plain data; :func:`~.descriptions.read_description` reads the counts."""
        described = {key: value for key, value in self.config.items() if value is not None}
        if self.labels is not None:
            described |= {"class_images": self.labels.images}
        if self.weights is not None:
            described |= {"weights_of_classes": self.weights}
        if (visits := getattr(loader.sampler, "visits", None)) is not None:
            described |= {"draws": visits.length}
        as_plain: dict[str, Any] = plain(described)
        return as_plain
