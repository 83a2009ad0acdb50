"""From a URL to a whole, checked file in the cache."""

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from tresnet_downstream.cache_folder import cache_folder
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.limits import excess, limit
from tresnet_downstream.system_errors import NotWrittenError, names_folder
from tresnet_downstream.weights.reading import looks_like_weights, read_checkpoint

_CHUNK = 1 << 20
FULL_SHA256 = re.compile(r"[0-9a-f]{64}")
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


class FetchError(UserError):
    """A file that a server does not give, or that is not what it should be.

    Attributes:
        answer: what the server said or gave, in a few words.
    """

    def __init__(self, source: str | Path, answer: str, advice: str = "") -> None:
        super().__init__(f"{source}: {answer}" + (f"; {advice}" if advice else ""))
        self.answer = answer


def fetch(url: str, sha256: str = "", path: Path | None = None, require: Callable[[Path], None] | None = None) -> Path:
    """Fetches a URL into the cache, unless it is there, and checks it either way.

    What a broken connection left is gone on with at the next call. The file appears under its name only when it
    is complete and its checksum fits: the published one, and the one remembered beside it when it first came.

    Args:
        url: ``http(s)://...``.
        sha256: the first digits of the checksum, where published.
        path: where it is kept; in the cache, at a place that the URL gives, by default.
        require: raises `UserError` if a new file is not what it should be.

    Raises:
        FetchError: if it cannot be fetched, or is not what it should be.
        UserError: if the cache cannot be written.
    """
    try:
        place = cached_path(url)
    except ValueError as error:
        raise FetchError(url, f"is no URL ({error})") from error
    path = path or place
    with locked(path):
        if path.is_file():
            check(path, sha256)
        else:
            # Two servers may hold two versions of a file: a part of one is not gone on with from the other.
            partial = place.with_name(f"{place.name}.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            _download(url, partial)
            try:
                admit(partial, url, path, sha256, require)
            except UserError:
                partial.unlink()
                raise
            os.replace(partial, path)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time makes a file of the cache; its folder is made.

    Raises:
        UserError: if the cache cannot be written.
    """
    locks = cache_folder() / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            names_folder(cache_folder()),
            FileLock(locks / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.lock"),
        ):
            yield
    except NotWrittenError as error:
        raise NotWrittenError(f"{error}, or set TRESNET_CACHE to a folder elsewhere") from error
    except OSError as error:
        raise UserError(f"{cache_folder()}: cannot be written ({error.strerror}); set TRESNET_CACHE") from error


def admit(
    file: Path, source: str | Path, path: Path, sha256: str = "", require: Callable[[Path], None] | None = None
) -> None:
    """Refuses a complete file that is not what it should be; remembers the checksum of one that is.

    Args:
        file: the file.
        source: what messages call it.
        path: its place in the cache, beside which the checksum is remembered.
        sha256: the first digits of the published checksum.
        require: raises `UserError` if the file is not what it should be; asked where no checksum is
            known, neither published nor remembered.

    Raises:
        FetchError: if it is refused.
    """
    if not looks_like_weights(file):
        raise FetchError(source, "gives something else than a weight file", GIVE_A_PATH)
    if require and not sha256 and not _memory(path).is_file():
        try:
            require(file)
        except UserError as error:
            raise FetchError(source, f"gives another file: {str(error).removeprefix(f'{file}: ')}") from error
    check(file, sha256, path, source)


def cached_path(url: str) -> Path:
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
        raise FetchError(url, "is not in the cache, and HF_HUB_OFFLINE forbids to fetch it", GIVE_A_PATH)
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
                    raise FetchError(url, "the server has another file than before", "try again, which starts over")
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
        raise FetchError(url, f"the server answers {error.code} {error.reason}", GIVE_A_PATH) from error
    except TimeoutError as error:
        raise FetchError(url, f"the server was silent for {timeout():g} s", _again(partial)) from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise FetchError(url, f"the server was silent for {timeout():g} s", _again(partial)) from error
        raise FetchError(url, f"cannot be reached ({error.reason})", GIVE_A_PATH) from error
    except InvalidURL as error:
        raise FetchError(url, f"is no URL ({error})") from error
    except (HTTPException, ConnectionError) as error:
        raise FetchError(url, "the connection was cut", _again(partial)) from error
    if received < total:
        raise FetchError(url, f"the connection was cut after {received:,} of {total:,} bytes", _again(partial))
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
        raise FetchError(url, f"{why}, and what came {reason}") from error


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
                raise FetchError(url, excess("download_bytes", f"has over {present + received:,} bytes"))
    return received


@contextmanager
def _bar(name: str, present: int, total: int | None) -> Iterator[Any]:
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, completed=present, total=total)
        yield lambda size: progress.update(task, advance=size)


def _memory(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def check(file: Path, published: str, path: Path | None = None, name: str | Path | None = None) -> None:
    """Compares a file's checksum with the published and the remembered one, or remembers it.

    Args:
        file: the file.
        published: the first digits of the published checksum, or nothing.
        path: the file's place in the cache, beside which the checksum is remembered; ``file`` by default.
        name: what messages call the file.

    Raises:
        FetchError: if they differ.
    """
    memory, name = _memory(path or file), name or file
    digest = sha256_of(file)
    if not digest.startswith(published):
        raise FetchError(name, f"its sha256 begins with {digest[:8]}, not with {published} as published")
    remembered = memory.read_text(encoding="ascii", errors="replace").strip() if memory.is_file() else ""
    if remembered and not FULL_SHA256.fullmatch(remembered):
        raise UserError(f"{memory}: is damaged: it holds no checksum; if you trust {name}, delete {memory.name}")
    if not remembered:
        with whole_file(memory) as partial:
            partial.write_text(f"{digest}\n")
    elif digest != remembered:
        raise FetchError(
            name,
            f"its sha256 begins with {digest[:8]}, but with {remembered[:8]} when it first came",
            f"if you trust the new file, delete {memory}",
        )


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
