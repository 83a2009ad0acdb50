"""From a name, URL or path to a whole, checked file on this machine."""

import contextlib
import difflib
import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, getproxies, urlopen

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from tresnet_downstream.cache_folder import cache_folder
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.limits import excess, limit
from tresnet_downstream.system_errors import NotWrittenError, names_folder
from tresnet_downstream.weights.catalogue import CATALOGUE
from tresnet_downstream.weights.reading import looks_like_weights, read_checkpoint

SCHEME = "tresnet://"
_CHUNK = 1 << 20
_FULL_SHA256 = re.compile(r"[0-9a-f]{64}")
GIVE_A_PATH = "fetch it by other means and give its path"


def timeout() -> float:
    """Seconds that a server may be silent: ``$TRESNET_TIMEOUT``, 30 by default."""
    value = os.environ.get("TRESNET_TIMEOUT", "30")
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0
    if not seconds > 0:
        raise UserError(f"TRESNET_TIMEOUT={value}: give a number of seconds above 0")
    return seconds


def catalogue_name(source: str | Path) -> str | None:
    """The catalogue's name that ``source`` is, with or without ``tresnet://``; None if it is none."""
    name = str(source).removeprefix(SCHEME)
    if name in CATALOGUE and (str(source).startswith(SCHEME) or not Path(source).exists()):
        return name
    return None


def locate(source: str | Path) -> Path:
    """The file that a path, an ``https://`` URL, a catalogue name or ``tresnet://NAME`` means; fetched if need be.

    Raises:
        UserError: for an unknown name, a file that is not there, and whatever goes wrong with fetching.
    """
    if name := catalogue_name(source):
        entry = CATALOGUE[name]
        return fetch(entry.source, entry.sha256)
    text = str(source)
    if text.startswith(("http://", "https://", "hf://")):
        return fetch(text)
    if not text.startswith(SCHEME) and Path(source).exists():
        return Path(source)
    nearest = difflib.get_close_matches(text.removeprefix(SCHEME), CATALOGUE, n=3, cutoff=0.5)
    hint = f"the nearest names of the catalogue are {', '.join(nearest)}" if nearest else "tools/weights.py lists names"
    what = "no such name in the catalogue" if text.startswith(SCHEME) else "no such file"
    raise UserError(f"{source}: {what}; {hint}")


def fetch(source: str, sha256: str = "") -> Path:
    """Fetches a URL into the cache, unless it is there, and checks it either way.

    What a broken connection left is gone on with at the next call. The file appears under its name only when it
    is complete and its checksum fits: the published one, and the one remembered beside it when it first came.

    Args:
        source: ``http(s)://...`` or ``hf://OWNER/REPOSITORY/FILE``.
        sha256: the first digits of the checksum, where published.

    Raises:
        UserError: if it cannot be fetched, or is not what it should be.
    """
    if source.startswith("hf://"):
        return _fetch_from_hub(source)
    try:
        path = _place(source)
    except ValueError as error:
        raise UserError(f"{source}: is no URL ({error})") from error
    locks = cache_folder() / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            names_folder(cache_folder()),
            FileLock(locks / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.lock"),
        ):
            if not path.is_file():
                partial = path.with_name(f"{path.name}.partial")
                _download(source, partial)
                _admit(source, partial, sha256, path)
                os.replace(partial, path)
            else:
                _check(path, sha256)
    except NotWrittenError as error:
        raise NotWrittenError(f"{error}, or set TRESNET_CACHE to a folder elsewhere") from error
    except OSError as error:
        raise UserError(f"{cache_folder()}: cannot be written ({error.strerror}); set TRESNET_CACHE") from error
    return path


def _place(url: str) -> Path:
    """Where in the cache a URL's file lies: below its host, so that names of two servers do not meet."""
    parts = urlsplit(url)
    name = re.sub(r"[^\w.-]", "_", parts.path.rpartition("/")[2]) or "file"
    # Two URLs that differ have two places, also where they differ in what no name of a file takes.
    if parts.query or not re.fullmatch(r"(/[\w-][\w.-]*)+", parts.path):
        name = f"{hashlib.sha256(f'{parts.path}?{parts.query}'.encode()).hexdigest()[:8]}-{name}"
    folders = [re.sub(r"[^\w.-]", "_", part) for part in (parts.netloc, *parts.path.split("/")[1:-1])]
    return cache_folder().joinpath(*(folder for folder in folders if folder not in ("", ".", "..")), name)


def _download(url: str, partial: Path) -> None:
    """Writes a URL's content to ``partial``, going on where an earlier call was cut off."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError(f"{url}: is not in the cache, and HF_HUB_OFFLINE forbids to fetch it; {GIVE_A_PATH}")
    present = partial.stat().st_size if partial.is_file() else 0
    # Which version of the file was begun, as the server marks it, and its length: two must not be joined.
    marker = partial.with_name(f"{partial.name}.version")
    begun = _begun(marker)
    if not begun["length"]:
        present = 0
    headers = {"User-Agent": "tresnet-downstream", "Accept-Encoding": "identity"}
    if present:
        headers["Range"] = f"bytes={present}-"
        if begun["mark"]:
            headers["If-Range"] = begun["mark"]
    # What is there is kept at every way out but the end: the next call goes on from it.
    try:
        with urlopen(Request(url, headers=headers), timeout=timeout()) as response:
            total = _length(response.headers["Content-Length"])
            if response.status == 206:
                total = begun["length"]
                if response.headers["Content-Range"] != f"bytes {present}-{total - 1}/{total}":
                    partial.unlink(missing_ok=True)
                    raise UserError(f"{url}: the server has another file than before; try again, which starts over")
            else:
                present = 0
                mark = response.headers["ETag"] or response.headers["Last-Modified"] or ""
                with whole_file(marker) as whole:
                    whole.write_text(json.dumps({"mark": mark, "length": total}))
            with partial.open("ab" if present else "wb") as file:
                received = present + _copy(url, response, file, present, total or None)
    except HTTPError as error:
        if error.code == 416:
            partial.unlink(missing_ok=True)
        raise UserError(f"{url}: the server answers {error.code} {error.reason}; {GIVE_A_PATH}") from error
    except TimeoutError as error:
        raise UserError(f"{url}: the server was silent for {timeout():g} s; {_again(partial)}") from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise UserError(f"{url}: the server was silent for {timeout():g} s; {_again(partial)}") from error
        raise UserError(f"{url}: cannot be reached ({error.reason}); {GIVE_A_PATH}") from error
    except InvalidURL as error:
        raise UserError(f"{url}: is no URL ({error})") from error
    except (HTTPException, ConnectionError) as error:
        raise UserError(f"{url}: the connection was cut; {_again(partial)}") from error
    if received < total:
        raise UserError(f"{url}: the connection was cut after {received:,} of {total:,} bytes; {_again(partial)}")
    marker.unlink(missing_ok=True)
    # A part of before may have been damaged since.
    if not total or present:
        _require_readable(url, partial, "it came in parts" if total else "the server does not say its length")


def _begun(marker: Path) -> dict[str, Any]:
    """What an earlier call noted of the file that it began; nothing if it noted nothing, or not all of it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        noted = parse_json(marker.read_bytes(), marker)
        return {"mark": str(noted["mark"]), "length": int(noted["length"])}
    return {"mark": "", "length": 0}


def _length(header: str | None) -> int:
    """The length that a server announces, in bytes; 0 if it does not."""
    return int(header) if header and header.isascii() and header.isdecimal() and len(header) < 19 else 0


def _require_readable(url: str, partial: Path, why: str) -> None:
    """Reads a file whose length does not show whether all of it came undamaged; ``why`` is for the message."""
    try:
        if looks_like_weights(partial):
            read_checkpoint(partial)
    except UserError as error:
        partial.unlink(missing_ok=True)
        reason = str(error).removeprefix(f"{partial}: ")
        raise UserError(f"{url}: {why}, and what came {reason}") from error


def _again(partial: Path) -> str:
    is_begun = partial.is_file() and partial.stat().st_size > 0
    return "try again, which goes on from there" if is_begun else f"try again, or {GIVE_A_PATH}"


def _copy(url: str, response: HTTPResponse, file: Any, present: int, total: int | None) -> int:
    received = 0
    with _bar(url.rpartition("/")[2], present, total) as advance:
        while chunk := response.read1(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            advance(len(chunk))
            if present + received > limit("download_bytes"):
                raise UserError(f"{url}: {excess('download_bytes', f'has over {present + received:,} bytes')}")
    return received


@contextmanager
def _bar(name: str, present: int, total: int | None) -> Iterator[Any]:
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, completed=present, total=total)
        yield lambda size: progress.update(task, advance=size)


def _admit(url: str, partial: Path, sha256: str, path: Path) -> None:
    """Refuses a complete download that is not what it should be; remembers the checksum of one that is."""
    try:
        if not looks_like_weights(partial):
            raise UserError(f"{url}: the server gives something else than a weight file; {GIVE_A_PATH}")
        _check(partial, sha256, _memory(path), url)
    except UserError:
        partial.unlink()
        raise


def _memory(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _check(path: Path, published: str, memory: Path | None = None, name: str | Path | None = None) -> None:
    """Compares a file's checksum with the published and the remembered one, or remembers it."""
    memory, name = memory or _memory(path), name or path
    digest = _sha256(path)
    if not digest.startswith(published):
        raise UserError(f"{name}: its sha256 begins with {digest[:8]}, not with {published} as published")
    remembered = memory.read_text(encoding="ascii", errors="replace").strip() if memory.is_file() else ""
    if remembered and not _FULL_SHA256.fullmatch(remembered):
        raise UserError(f"{memory}: is damaged: it holds no checksum; if you trust {name}, delete {memory.name}")
    if not remembered:
        with whole_file(memory) as partial:
            partial.write_text(f"{digest}\n")
    elif digest != remembered:
        raise UserError(
            f"{name}: its sha256 begins with {digest[:8]}, but with {remembered[:8]} when it first came; "
            f"if you trust the new file, delete {memory}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _hub_parts(source: str) -> tuple[str, str]:
    parts = source.removeprefix("hf://").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise UserError(f"{source}: give hf://OWNER/REPOSITORY/FILE")
    owner, repository, file = parts
    return f"{owner}/{repository}", file


def _require_name_service(endpoint: str) -> None:
    """Raises OSError if the hub's name cannot be resolved: its client would try for half a minute before it says so."""
    if not getproxies():
        socket.getaddrinfo(urlsplit(endpoint).hostname, 443)


def _fetch_from_hub(source: str) -> Path:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    repository, file = _hub_parts(source)
    cached = try_to_load_from_cache(repository, file)
    try:
        if not isinstance(cached, str):
            _require_name_service(constants.ENDPOINT)
            cached = hf_hub_download(repository, file)
        path = Path(cached)
    except Exception as error:  # The hub's client raises what its HTTP library does, which changes.
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{source}: cannot be fetched from the hub ({reason}); {GIVE_A_PATH}") from error
    # The hub's cache names a large file by its checksum.
    published = path.resolve().name
    if _FULL_SHA256.fullmatch(published) and _sha256(path) != published:
        raise UserError(f"{path}: is damaged: not the hub's checksum; delete {path.resolve()} and fetch again")
    return path
