"""Copies downloaded public files to a folder, for machines without access to the internet."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import named_if_unwritable, whole_file
from tresnet_downstream.weights.catalogue import CATALOGUE, Place
from tresnet_downstream.weights.download import admit, locked, sha256_of
from tresnet_downstream.weights.public_files import path_of, present, require_entry


def fill_mirror(folder: str | Path, files: Sequence[str | Path] = ()) -> Iterator[tuple[str, str]]:
    """Copies public files to a folder for ``$TRESNET_MIRROR``, under their published names.

    Args:
        folder: the folder, which is created if necessary. Files in it are not replaced.
        files: files that were fetched by other means, under their published names. Files in the caches are copied too.

    Yields:
        For each entry of the catalogue, its name and the result: the files that were copied or present, or that
        there is none.

    Raises:
        UserError: if a file does not have a published name, has another content than its name says, or differs from the
            file of that name in the folder.
    """
    folder = Path(folder)
    own_files = {_published_name(file): Path(file) for file in files}
    with named_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, entry in CATALOGUE.items():
        results = []
        for place in entry.places:
            source = own_files.get(place.file_name) or present(place)
            target = folder / place.file_name
            if source is None:
                if target.is_file():
                    results.append(f"{target.name} is present")
                continue
            if source in own_files.values():
                _require(source, place, name)
            results.append(_copied(source, target))
        yield name, ", ".join(results) or "not in the caches or the given files"


def _published_name(file: str | Path) -> str:
    name = Path(file).name
    if not any(name == place.file_name for entry in CATALOGUE.values() for place in entry.places):
        raise UserError(f"{file}: no public file has this name; `tresnet weights show` describes a file")
    if not Path(file).is_file():
        raise UserError(f"{file}: no such file")
    return name


def _require(source: Path, place: Place, name: str) -> None:
    path = path_of(place)
    with locked(path):
        admit(source, source, path, place.sha256, lambda file: require_entry(file, name))


def _copied(source: Path, target: Path) -> str:
    if target.is_file():
        if os.path.getsize(source) != os.path.getsize(target) or sha256_of(source) != sha256_of(target):
            raise UserError(f"{target}: differs from {source}; remove the wrong one")
        return f"{target.name} is present"
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
    return f"{target.name} copied"
