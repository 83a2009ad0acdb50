"""The folder of cached files."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of downloads: ``$TRESNET_CACHE`` or, if it is not set, ``tresnet_downstream`` in the user's cache."""
    if folder := os.environ.get("TRESNET_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tresnet_downstream"
