"""Checks image names of annotation files and run folders: missing files, and files outside of the image folder."""

import os
from collections.abc import Iterable

from tresnet_downstream.errors import UserError


def missing_images(folder: str, names: Iterable[str], source: object, outside_paths: bool = False) -> list[str]:
    """The names of missing files. Each folder is listed once, which is much faster than checking each file.

    A broken symbolic link counts as missing: git-annex and DVC create such links for files that were not downloaded.

    Args:
        folder: the image folder; it may be a symbolic link itself.
        names: paths relative to the folder.
        source: the file that lists the names, for messages.
        outside_paths: whether images may be outside of the folder.

    Raises:
        UserError: without ``outside_paths``, if a file is outside of the folder: by an absolute path, by ``..``, or by
            a symbolic link below the folder.
    """
    root = os.path.realpath(folder)
    listed: dict[str, dict[str, bool]] = {}
    missing = []
    for name in names:
        parent, base = os.path.split(name)
        if parent not in listed:
            listed[parent] = _links_by_name(os.path.join(folder, parent))
            if listed[parent] and not outside_paths and not _lies_below(root, os.path.join(folder, parent)):
                raise UserError(_refusal(source, name, folder))
        is_link = listed[parent].get(base)
        if is_link is None:
            missing.append(name)
        elif is_link:
            path = os.path.join(folder, name)
            if not outside_paths and not _lies_below(root, path):
                raise UserError(_refusal(source, name, folder))
            if not os.path.exists(path):
                missing.append(name)
    return missing


def lies_outside(folder: str, name: str) -> bool:
    """Whether the file of a name is outside of the folder, with symbolic links resolved."""
    return not _lies_below(os.path.realpath(folder), os.path.join(folder, name))


def _refusal(source: object, name: str, folder: str) -> str:
    return f"{source}: {name!r} leads out of the image folder {folder}; outside_paths=True allows such paths"


def _lies_below(root: str, path: str) -> bool:
    try:
        return os.path.commonpath([root, os.path.realpath(path)]) == root
    except ValueError:  # another drive, or an invalid name
        return False


def _links_by_name(folder: str) -> dict[str, bool]:
    """Whether each entry of a folder is a symbolic link; empty if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except (OSError, ValueError):
        return {}
