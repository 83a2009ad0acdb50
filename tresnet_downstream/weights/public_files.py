"""From a name, URL or path to a file on this machine; the places of a catalogue entry are tried in turn."""

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.weights.catalogue import CATALOGUE, Place, PublicWeight
from tresnet_downstream.weights.download import (
    GIVE_A_PATH,
    FetchError,
    admit,
    cached_path,
    check,
    fetch,
    locked,
)
from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.head_names import num_classes
from tresnet_downstream.weights.hub import SCHEME as HUB
from tresnet_downstream.weights.hub import fetch_from_hub, fetch_repository, in_hub_cache, is_repository
from tresnet_downstream.weights.reading import read_checkpoint, unwrap
from tresnet_downstream.weights.shared import in_folder

SCHEME = "tresnet://"
_WEB = ("http://", "https://")
# Of the size in the catalogue: a file may leave out counters and constants, and another variant differs by more.
_SIZE_TOLERANCE = 0.03


def catalogue_name(source: str | Path) -> str | None:
    """The catalogue's name that ``source`` is, with or without ``tresnet://``; None if it is none."""
    name = str(source).removeprefix(SCHEME)
    if name in CATALOGUE and (str(source).startswith(SCHEME) or not Path(source).exists()):
        return name
    return None


def locate(source: str | Path) -> Path:
    """The file that a path, an ``https://`` URL, a catalogue name or ``tresnet://NAME`` means; fetched if need be.

    A folder that was shared means its weights; ``hf://OWNER/NAME``, or ``hf://OWNER/NAME@REVISION``, means those of a
    repository of the Hugging Face hub, and ``hf://OWNER/NAME/FILE`` one file of it.

    A name of the catalogue is looked for in the caches first, then in the mirrors that ``$TRESNET_MIRROR`` lists, then
    at the published places.

    Raises:
        UserError: for an unknown name, a file that is not there, and whatever goes wrong with fetching.
    """
    if name := catalogue_name(source):
        return in_cache(CATALOGUE[name]) or _from_first_place(name, CATALOGUE[name])
    text = str(source)
    if text.startswith(HUB):
        return fetch_repository(text) if is_repository(text) else fetch_from_hub(text)
    if text.startswith(_WEB):
        return fetch(text)
    if not text.startswith(SCHEME) and Path(source).exists():
        return in_folder(source) if Path(source).is_dir() else Path(source)
    nearest = difflib.get_close_matches(text.removeprefix(SCHEME), CATALOGUE, n=3, cutoff=0.5)
    hint = f"the nearest names of the catalogue are {', '.join(nearest)}" if nearest else "tresnet weights lists names"
    what = "no such name in the catalogue" if text.startswith(SCHEME) else "no such file"
    raise UserError(f"{source}: {what}; {hint}")


def in_cache(entry: PublicWeight) -> Path | None:
    """The file of an entry that the caches have, with its checksum checked; None if they have none.

    Raises:
        UserError: if the file is damaged.
    """
    return next(filter(None, map(present, entry.places)), None)


def present(place: Place) -> Path | None:
    """The file of a place that the caches have, with its checksum checked; None if they do not have it.

    Raises:
        UserError: if the file is damaged.
    """
    if (path := path_of(place)).is_file():
        check(path, place.sha256)
        return path
    return in_hub_cache(place.url) if place.url.startswith(HUB) else None


def path_of(place: Place) -> Path:
    """Where the cache keeps the file of a place, whichever server it came from."""
    return cached_path(place.url.replace(HUB, "https://huggingface.co/", 1))


def require_entry(path: Path, name: str) -> None:
    """Raises UserError if a file holds other weights than a catalogue entry, told by size and number of classes."""
    entry = CATALOGUE[name]
    tensors = unwrap(read_checkpoint(path), None, path)[1]
    translated = None if entry.network else translate(tensors)
    if translated is None and not entry.network:
        raise UserError(f"{path}: holds no TResNet")
    if translated is not None:
        # Where the head is not stated, the size is the backbone's.
        parts = ("backbone.", "head.") if entry.num_classes else ("backbone.",)
        tensors = {key: tensor for key, tensor in translated.state_dict.items() if key.startswith(parts)}
    megabytes = sum(4 * tensor.numel() for tensor in tensors.values()) / 1e6
    if abs(megabytes / entry.megabytes - 1) > _SIZE_TOLERANCE:
        raise UserError(f"{path}: holds {megabytes:.0f} MB of weights, not the {entry.megabytes} MB of {name}")
    classes = num_classes(tensors)
    if entry.num_classes and translated is not None and classes != entry.num_classes:
        raise UserError(f"{path}: has {classes} classes, not the {entry.num_classes} of {name}")


def mirrors() -> list[str]:
    """The folders and URLs that ``$TRESNET_MIRROR`` lists, separated by commas."""
    return [each.strip() for each in os.environ.get("TRESNET_MIRROR", "").split(",") if each.strip()]


@dataclass(frozen=True)
class _Candidate:
    """One file to try: where it is, and which published file it should be."""

    source: str
    place: Place

    @property
    def short(self) -> str:
        """What messages call it: its host, its folder or the hub's repository."""
        return urlsplit(self.source).netloc if self.source.startswith(_WEB) else self.source


def _candidates(entry: PublicWeight) -> Iterator[_Candidate]:
    for mirror in mirrors():
        for place in entry.places:
            is_url = mirror.startswith(_WEB)
            source = (
                f"{mirror.rstrip('/')}/{quote(place.file_name)}" if is_url else os.path.join(mirror, place.file_name)
            )
            yield _Candidate(source, place)
    for place in entry.places:
        yield _Candidate(place.url, place)


def _from_first_place(name: str, entry: PublicWeight) -> Path:
    """The file of the first place that has it; a line says which places had not."""
    answers: list[str] = []
    for candidate in _candidates(entry):
        try:
            path = _fetch(candidate, name)
        except FetchError as error:
            answers.append(f"{candidate.short}: {error.answer}")
            continue
        if answers:
            tell(f"{name}: fetched from {candidate.short}, since {_listed(answers)}")
        return path
    advice = "" if mirrors() else ", or set TRESNET_MIRROR"
    raise UserError(f"{name}: no place gives it ({_listed(answers)}); {GIVE_A_PATH}{advice}")


def _fetch(candidate: _Candidate, name: str) -> Path:
    source, place = candidate.source, candidate.place
    if source.startswith(HUB):
        return fetch_from_hub(source)

    def require(file: Path) -> None:
        require_entry(file, name)

    path = path_of(place)
    if source.startswith(_WEB):
        return fetch(source, place.sha256, path, require)
    if not Path(source).is_file():
        raise FetchError(source, "no such file")
    with locked(path):
        admit(Path(source), source, path, place.sha256, require)
    return Path(source)


def _listed(answers: list[str]) -> str:
    return "; ".join(dict.fromkeys(answers))
