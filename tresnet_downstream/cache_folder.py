"""Where the toolkit keeps files of its own between commands."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads are kept: ``$TRESNET_CACHE``, else ``tresnet_downstream`` in the user's cache folder."""
    if folder := os.environ.get("TRESNET_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tresnet_downstream"
