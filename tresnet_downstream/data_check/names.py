"""Checks of file names: invalid names, and names that lead out of the image folder."""

import os

from tresnet_downstream.image_paths import lies_outside

# Limits of Linux; `os.pathconf`, where it exists, returns those of the running system.
_PATH_MAX, _NAME_MAX = 4096, 255


def impossible_name(name: str, folder: str) -> str | None:
    """The reason why a file name is invalid; None if it is valid."""
    if "\0" in name:
        return "the name contains a NUL character"
    encoded = name.encode()
    longest = max(map(len, encoded.split(b"/")))
    if longest > _limit("PC_NAME_MAX", _NAME_MAX):
        return f"a part of the name has {longest:,} bytes; file systems allow {_limit('PC_NAME_MAX', _NAME_MAX):,}"
    length = len(os.fsencode(os.path.join(folder, ""))) + len(encoded)
    if length >= _limit("PC_PATH_MAX", _PATH_MAX):
        return f"the path has {length:,} bytes; the system allows {_limit('PC_PATH_MAX', _PATH_MAX):,}"
    return None


def way_out(name: str, folder: str) -> str | None:
    """Describes how a name leads out of a folder, even if it leads back in; None if it does not.

    Args:
        name: file name, relative to the folder.
        folder: the folder, with resolved symbolic links.
    """
    if os.path.isabs(name):
        return "the name is an absolute path"
    if os.path.normpath(name).split(os.sep)[0] == os.pardir:
        return f"the name leads out of the folder of images by {os.pardir!r}"
    if lies_outside(folder, name):
        real = os.path.realpath(os.path.join(folder, name))
        return f"a symbolic link leads to {real}, outside of the folder of images"
    return None


def _limit(name: str, usual: int) -> int:
    try:
        return os.pathconf(os.sep, name)
    except (AttributeError, OSError, ValueError):
        return usual
