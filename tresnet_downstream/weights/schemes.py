"""MMEngine's loaders of checkpoints, safe: for local files, ``https://`` and ``tresnet://NAME``.

MMEngine 0.10.7 gives its own local files to ``torch.load``, which refuses what MMEngine stores in them, and files
from the network to a function that unpickles whatever they hold. Importing this module puts :func:`read_checkpoint`
in their place, by the registry that MMEngine has for it.
"""

from typing import Any

from mmengine.runner import CheckpointLoader

from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.public_files import SCHEME, locate
from tresnet_downstream.weights.reading import read_checkpoint, unwrap


def load_from_file(filename: str, map_location: Any = None) -> dict[str, Any]:
    """A whole checkpoint, local or fetched."""
    return read_checkpoint(locate(filename), map_location)


def load_from_catalogue(filename: str, map_location: Any = None) -> dict[str, Any]:
    """A file of the catalogue: the weights as ``backbone.*`` and ``head.*``."""
    path = locate(filename)
    weights = unwrap(read_checkpoint(path, map_location), path=path)[1]
    translated = translate(weights)
    return {"state_dict": weights if translated is None else translated.state_dict}


CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_from_catalogue, force=True)
CheckpointLoader.register_scheme(prefixes=("", "http://", "https://"), loader=load_from_file, force=True)
