"""Public weights: the catalogue of files, downloads, safe reading, and translation of the names of parameters."""

from tresnet_downstream.weights.catalogue import CATALOGUE, Place, PublicWeight
from tresnet_downstream.weights.download import fetch
from tresnet_downstream.weights.formats import to_release, to_timm, translate
from tresnet_downstream.weights.pretrained import PretrainedModule, load_pretrained
from tresnet_downstream.weights.public_files import locate
from tresnet_downstream.weights.reading import is_detector, read_checkpoint, unwrap

__all__ = [
    "CATALOGUE",
    "Place",
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
