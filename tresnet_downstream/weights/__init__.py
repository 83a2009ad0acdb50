"""The public weights: where they are, how they are fetched and read, what their names mean."""

from tresnet_downstream.weights.catalogue import CATALOGUE, PublicWeight
from tresnet_downstream.weights.download import fetch, locate
from tresnet_downstream.weights.formats import to_release, to_timm, translate
from tresnet_downstream.weights.pretrained import PretrainedModule, load_pretrained
from tresnet_downstream.weights.reading import is_detector, read_checkpoint, unwrap

__all__ = [
    "CATALOGUE",
    "PretrainedModule",
    "PublicWeight",
    "fetch",
    "is_detector",
    "load_pretrained",
    "locate",
    "read_checkpoint",
    "to_release",
    "to_timm",
    "translate",
    "unwrap",
]
