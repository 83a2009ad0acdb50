"""Finds a weight file by name, URL or path, and downloads it if necessary. Tries the places of an entry in order."""

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
# Relative to the size in the catalogue. Files may lack counters and constants; other variants differ by more.
_SIZE_TOLERANCE = 0.03


def catalogue_name(source: str | Path) -> str | None:
    """The name in the catalogue if ``source`` is one, with or without ``tresnet://``, else None.

    Examples:
        >>> catalogue_name("tresnet://m_in1k_224")
        'm_in1k_224'
    """
    name = str(source).removeprefix(SCHEME)
    if name in CATALOGUE and (str(source).startswith(SCHEME) or not Path(source).exists()):
        return name
    return None


def locate(source: str | Path) -> Path:
    """The local path of a weight file, which is fetched if necessary.

    Args:
        source: one of

            * the path of a file, or of a shared folder;
            * an ``http://`` or ``https://`` URL;
            * a name of the catalogue, with or without ``tresnet://``: searched in the caches, then in the mirrors of
              ``$TRESNET_MIRROR``, then at the published places;
            * ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``, for the weights of a repository of the Hugging Face
              hub, or ``hf://OWNER/NAME/FILE``, for one of its files.

    Returns:
        The path of the file.

    Raises:
        UserError: if the name is unknown, the file does not exist, or it cannot be fetched.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("weights.pth").write_bytes(b"")
        >>> locate("weights.pth").name
        'weights.pth'
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
    """A file of an entry in the caches, after a check of its checksum; None if the caches have none.

    Raises:
        UserError: if the file is damaged.
    """
    return next(filter(None, map(present, entry.places)), None)


def present(place: Place) -> Path | None:
    """The file of a place in the caches, after a check of its checksum; None if the caches do not have it.

    Raises:
        UserError: if the file is damaged.
    """
    if (path := path_of(place)).is_file():
        check(path, place.sha256)
        return path
    return in_hub_cache(place.url) if place.url.startswith(HUB) else None


def path_of(place: Place) -> Path:
    """The path in the cache for the file of a place. It is the same for every server that has the file."""
    return cached_path(place.url.replace(HUB, "https://huggingface.co/", 1))


def require_entry(path: Path, name: str) -> None:
    """Raises UserError unless a file has the size and the number of classes of a catalogue entry."""
    entry = CATALOGUE[name]
    tensors = unwrap(read_checkpoint(path), None, path)[1]
    translated = None if entry.network else translate(tensors)
    if translated is None and not entry.network:
        raise UserError(f"{path}: has no weights of a TResNet")
    if translated is not None:
        # If the head is not stated, the size is that of the backbone.
        parts = ("backbone.", "head.") if entry.num_classes else ("backbone.",)
        tensors = {key: tensor for key, tensor in translated.state_dict.items() if key.startswith(parts)}
    megabytes = sum(4 * tensor.numel() for tensor in tensors.values()) / 1e6
    if abs(megabytes / entry.megabytes - 1) > _SIZE_TOLERANCE:
        raise UserError(f"{path}: has {megabytes:.0f} MB of weights, not the {entry.megabytes} MB of {name}")
    classes = num_classes(tensors)
    if entry.num_classes and translated is not None and classes != entry.num_classes:
        raise UserError(f"{path}: has {classes} classes, not the {entry.num_classes} of {name}")


def mirrors() -> list[str]:
    """The folders and URLs that ``$TRESNET_MIRROR`` lists, separated by commas."""
    return [each.strip() for each in os.environ.get("TRESNET_MIRROR", "").split(",") if each.strip()]


@dataclass(frozen=True)
class _Candidate:
    """A file to try: its path or URL, and the place whose published file it should be."""

    source: str
    place: Place

    @property
    def short(self) -> str:
        """The name in messages: the host of a URL, else the source."""
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
    """Fetches the file from the first place that has it. A message lists the places that failed."""
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
    raise UserError(f"{name}: cannot be fetched from any place ({_listed(answers)}); {GIVE_A_PATH}{advice}")


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
