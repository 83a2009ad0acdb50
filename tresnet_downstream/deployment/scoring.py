"""Exported files as models of MMEngine's runner, for scoring."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypedDict

import torch
from mmengine.model import BaseModel
from torch import Tensor

from tresnet_downstream.classification.classifier import ImagePreprocessor
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import ExportedClassifier, ExportedDetector, ExportedJoint, open_exported
from tresnet_downstream.exported.file import DETECTOR, ExportedFile
from tresnet_downstream.prediction.probabilities import probabilities_of
from tresnet_downstream.registry import MODELS, SCOPE
from tresnet_downstream.running.ready_model import ReadyModel

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample


class Batch(TypedDict):
    """A batch of MMDetection's data loader.

    Attributes:
        inputs: images, uint8 of shape 3 x H x W, BGR.
        data_samples: their data samples.
    """

    inputs: Sequence[Tensor]
    data_samples: "Sequence[DetDataSample]"


@MODELS.register_module()
class ScoredClassifier(BaseModel):
    """An exported classifier in a validation.

    Args:
        file: path of the exported file.
        classes: classes of the data, which must be those of the file.
        multi_label: see :class:`ImageClassifier`.
    """

    def __init__(self, file: str, classes: Sequence[str] | None = None, multi_label: bool = True) -> None:
        super().__init__(ImagePreprocessor())
        self.exported, self.multi_label = ExportedClassifier(file), multi_label
        if classes is not None and tuple(classes) != self.exported.classes:
            raise UserError(f"{file}: has other classes than the data; export it with those")

    def forward(self, inputs: Tensor, mode: str = "tensor", **_: object) -> Tensor:
        """Logits (``mode='tensor'``) or probabilities (``'predict'``) for N x 3 x H x W in [0, 1]."""
        logits = self.exported.logits(inputs.cpu().numpy())
        return torch.from_numpy(probabilities_of(logits, self.multi_label) if mode == "predict" else logits)


@MODELS.register_module()
class ScoredDetector(BaseModel):
    """An exported detector or joint model in a test of MMDetection. The pipeline must not resize images.

    Args:
        file: path of the exported file.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        exported = open_exported(file)
        assert not isinstance(exported, ExportedClassifier)  # `ready_detector` has checked this
        self.exported = exported

    def forward(self, *arguments: object, **keywords: object) -> NoReturn:
        """Not called: a test calls :meth:`test_step`."""
        raise NotImplementedError

    def test_step(self, data: Batch) -> "list[DetDataSample]":
        """The samples with ``pred_instances`` in pixels of their images; joint models add label probabilities."""
        from mmengine.structures import InstanceData

        images = (each.permute(1, 2, 0).numpy()[:, :, ::-1] for each in data["inputs"])
        predictions = self.exported.find(images, max(len(data["inputs"]), 1))
        for sample, detections in zip(data["data_samples"], predictions, strict=True):
            sample.pred_instances = InstanceData(
                bboxes=torch.from_numpy(detections.boxes),
                scores=torch.from_numpy(detections.scores),
                labels=torch.from_numpy(detections.labels),
            )
            if detections.label_probabilities is not None:
                sample.label_probabilities = torch.from_numpy(detections.label_probabilities)
        return list(data["data_samples"])


def ready_classifier(file: ExportedFile) -> ReadyModel:
    """An exported classifier for scoring.

    Raises:
        UserError: as :class:`ExportedClassifier`.
    """
    model = ExportedClassifier(file)
    config = {"type": f"{SCOPE}.{ScoredClassifier.__name__}", "file": str(file.path), "multi_label": model.multi_label}
    return ReadyModel(config, model.classes, model.pipeline)


def ready_detector(path: str | Path, kind: str = DETECTOR) -> ReadyModel:
    """An exported detector or joint model for scoring.

    Args:
        path: the file.
        kind: ``detector`` or ``joint``.

    Raises:
        UserError: as :class:`ExportedFile`, and if the file is of another kind.
    """
    model = (ExportedDetector if kind == DETECTOR else ExportedJoint)(path)
    config = {"type": f"{SCOPE}.{ScoredDetector.__name__}", "file": str(path)}
    return ReadyModel(config, model.classes)
