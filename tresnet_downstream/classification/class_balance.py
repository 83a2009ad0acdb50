"""The config keys for rare classes (``class_weights``, ``initial_bias``, ``sampling``), applied to a training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from tresnet_downstream.classification.class_labels import ClassLabels, class_labels_of, class_labels_or_none
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
from tresnet_downstream.interfaces import LabelledImages
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import MODELS, takes_argument
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.resuming import weights_setting


@dataclass(frozen=True, eq=False)
class ClassBalance:
    """The keys ``class_weights``, ``initial_bias`` and ``sampling`` of a config, and the labels of its training data.

    Attributes:
        config: the values of the keys.
        labels: labels of the training data; None if the data set does not provide them and no key needs them.
        weights: weights of the classes in the loss, (C,); None for no weights.
    """

    config: Mapping[str, Any]
    labels: ClassLabels | None
    weights: NDArray[np.float64] | None

    @classmethod
    def of(cls, config: Config, dataset: LabelledImages) -> "ClassBalance":
        """Reads the keys.

        Args:
            config: the config of the training.
            dataset: the training data.

        Raises:
            UserError: for an invalid value of a key, and for a data set that does not provide its labels if a key
                needs them.
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
        labels = class_labels_of(dataset, needing[0]) if needing else class_labels_or_none(dataset)
        weights = None
        if kind is not None:
            assert labels is not None
            weights = class_weights(kind, labels, config.get("effective_beta", 0.999))
        return cls(values, labels, weights)

    def weighted(self, model: dict[str, Any]) -> dict[str, Any]:
        """The config of the model with the class weights as an argument of the loss.

        Args:
            model: the config of the model.

        Raises:
            UserError: if the loss does not have the argument, or the config sets it.
        """
        loss = model.get("loss")
        if self.weights is None or not loss:
            return model
        kind = MODELS.get(str(loss.get("type")))
        if kind is not None and not takes_argument(kind, "class_weights"):
            raise UserError(
                f"class_weights: {kind.__name__} has no argument `class_weights` for the C factors of the classes; add "
                "it, or leave class_weights out"
            )
        if loss.get("class_weights") is not None:
            raise UserError("class_weights: model.loss.class_weights is set too; leave one of them out")
        return {**model, "loss": {**loss, "class_weights": self.weights.tolist()}}

    def set_bias(self, model: ImageClassifier, config: Config, random_head: Mapping[str, Tensor]) -> None:
        """Sets the initial bias of the head, unless its weights were loaded from a file, and prints a line.

        Args:
            model: the classifier, with the weights that training starts from.
            config: the config of the training.
            random_head: state dict of the head before any file was loaded.

        Raises:
            UserError: if the head has no bias for each class.
        """
        if self.config["initial_bias"] is None:
            return
        assert self.labels is not None
        if config.model.get("init_cfg"):
            tell("note: initial_bias is not applied: the head starts from the weights of model.init_cfg")
            return
        if any(not torch.equal(random_head[name], value) for name, value in model.head.state_dict().items()):
            tell("note: initial_bias is not applied: the head's weights and bias were loaded from a file")
            return
        biases = initial_biases(self.labels, model.multi_label)
        set_initial_bias(model.head, biases)
        shares = 1 / (1 + np.exp(-biases)) if model.multi_label else np.exp(biases) / np.exp(biases).sum()
        text = f"initial_bias: the head starts with probabilities from {shares.min():.3g} to {shares.max():.3g}"
        if unseen := self.labels.classes_without_image():
            text += f"; no training image shows {unseen}, which counts as half an image"
        tell(text)

    def notices(self, loader: DataLoader[object]) -> Iterator[str]:
        """Lines about the weights and the sampling of a training with this loader."""
        if self.weights is not None:
            assert self.labels is not None
            yield weights_text(self.config["class_weights"], self.weights, self.labels)
        visits = getattr(loader.sampler, "visits", None)
        if visits is not None:
            yield visits.notice
            if self.weights is not None:
                yield "note: sampling and class_weights both favour rare classes; their effects multiply"

    def settings(self) -> dict[str, str]:
        """Digests of the labels that sampling or class weights use. A resumed run must have the same."""
        if self.labels is None:
            return {}
        uses = {"training labels": self.config["sampling"], "labels of class_weights": self.config["class_weights"]}
        return {name: self.labels.digest() for name, value in uses.items() if value is not None}

    def description(self, loader: DataLoader[object]) -> dict[str, object]:
        """The settings and counts for the description in checkpoints, as plain data, see :mod:`.descriptions`."""
        described = {key: value for key, value in self.config.items() if value is not None}
        if self.labels is not None:
            described |= {"class_images": self.labels.images}
        if self.weights is not None:
            described |= {"weights_of_classes": self.weights}
        if (visits := getattr(loader.sampler, "visits", None)) is not None:
            described |= {"draws": visits.length}
        as_plain: dict[str, object] = plain(described)
        return as_plain
