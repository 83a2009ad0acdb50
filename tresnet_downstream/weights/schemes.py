"""Safe loaders of checkpoints for MMEngine, for local files, ``http(s)://`` and ``tresnet://NAME``.

MMEngine 0.10.7 reads local files by ``torch.load``, which refuses objects that MMEngine stores in them, and downloads
by a function that unpickles any object. Importing this module replaces both by :func:`read_checkpoint`, in MMEngine's
registry of loaders.
"""

from mmengine.runner import CheckpointLoader

from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.public_files import SCHEME, locate
from tresnet_downstream.weights.reading import MapLocation, read_checkpoint, unwrap


def load_from_file(filename: str, map_location: MapLocation = None) -> dict[str, object]:
    """Reads the checkpoint at a path or URL."""
    return read_checkpoint(locate(filename), map_location)


def load_from_catalogue(filename: str, map_location: MapLocation = None) -> dict[str, object]:
    """Reads a file of the catalogue and translates its weights to the names ``backbone.*`` and ``head.*``."""
    path = locate(filename)
    weights = unwrap(read_checkpoint(path, map_location), path=path)[1]
    translated = translate(weights)
    return {"state_dict": weights if translated is None else translated.state_dict}


CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_from_catalogue, force=True)
CheckpointLoader.register_scheme(prefixes=("", "http://", "https://"), loader=load_from_file, force=True)
