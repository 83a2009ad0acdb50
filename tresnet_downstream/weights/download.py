"""Downloads a URL into the cache: resumes interrupted downloads and checks complete files."""

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
from typing import BinaryIO, NamedTuple
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
    """The timeout of a server in seconds: ``$TRESNET_TIMEOUT``, 30 by default.

    Raises:
        UserError: if ``$TRESNET_TIMEOUT`` is not a number above 0.
    """
    value = os.environ.get("TRESNET_TIMEOUT", "30")
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0
    if not seconds > 0:
        raise UserError(f"TRESNET_TIMEOUT={value}: give a number of seconds above 0")
    return seconds


class FetchError(UserError):
    """Raised if a file cannot be fetched, or if its content is not the expected one.

    Attributes:
        answer: the reason, in a few words.
    """

    def __init__(self, source: str | Path, answer: str, advice: str = "") -> None:
        super().__init__(f"{source}: {answer}" + (f"; {advice}" if advice else ""))
        self.answer = answer


def fetch(url: str, sha256: str = "", path: Path | None = None, require: Callable[[Path], None] | None = None) -> Path:
    """Fetches a URL into the cache, unless the cache has the file, and checks the file in both cases.

    If the connection breaks, the next call resumes the download. The file gets its name only when it is complete and
    its checksum is right. The checksum is compared with the published one, and with the one that was stored beside the
    file when it was first fetched.

    Args:
        url: ``http(s)://...``.
        sha256: the first digits of the published checksum; empty if none is published.
        path: path of the file; None for the place in the cache that the URL determines.
        require: raises `UserError` if the content of a new file is not the expected one.

    Returns:
        The path of the file.

    Raises:
        FetchError: if the file cannot be fetched, or is not the expected one.
        UserError: if the cache cannot be written.
    """
    try:
        place = cached_path(url)
    except ValueError as error:
        raise FetchError(url, f"is not a URL ({error})") from error
    path = path or place
    with locked(path):
        if path.is_file():
            check(path, sha256)
        else:
            # The partial file belongs to the URL, not to `path`: two servers may have two versions of the file.
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
    """Locks a file of the cache, so that one process at a time writes it, and creates its folder.

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
    """Checks the content of a complete file and stores its checksum.

    Args:
        file: the file.
        source: name of the file in messages.
        path: its place in the cache. The checksum is stored beside it.
        sha256: the first digits of the published checksum; empty if none is published.
        require: raises `UserError` if the content is not the expected one. It is called if neither a published nor a
            stored checksum is known.

    Raises:
        FetchError: if the file is not the expected one.
    """
    if not looks_like_weights(file):
        raise FetchError(source, "is not a weight file", GIVE_A_PATH)
    if require and not sha256 and not _checksum_file(path).is_file():
        try:
            require(file)
        except UserError as error:
            raise FetchError(source, f"is another file: {str(error).removeprefix(f'{file}: ')}") from error
    check(file, sha256, path, source)


def cached_path(url: str) -> Path:
    """The path in the cache for a URL. It contains the host, so that files of two servers do not collide."""
    parts = urlsplit(url)
    name = re.sub(r"[^\w.-]", "_", parts.path.rpartition("/")[2]) or "file"
    # A checksum of the URL distinguishes URLs that differ only in characters that file names cannot have.
    if parts.query or not re.fullmatch(r"(/[\w-][\w.-]*)+", parts.path):
        name = f"{hashlib.sha256(f'{parts.path}?{parts.query}'.encode()).hexdigest()[:8]}-{name}"
    folders = [re.sub(r"[^\w.-]", "_", part) for part in (parts.netloc, *parts.path.split("/")[1:-1])]
    return cache_folder().joinpath(*(folder for folder in folders if folder not in ("", ".", "..")), name)


def _download(url: str, partial: Path) -> None:
    """Writes the content of a URL to ``partial``, or resumes the download of an earlier call."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise FetchError(url, "is not in the cache, and HF_HUB_OFFLINE does not allow downloads", GIVE_A_PATH)
    present = partial.stat().st_size if partial.is_file() else 0
    # The server's mark of the version and the length, so that parts of two versions are not joined.
    version_file = partial.with_name(f"{partial.name}.version")
    begun = _begun_version(version_file)
    if not begun.length:
        present = 0
    headers = {"User-Agent": "tresnet-downstream", "Accept-Encoding": "identity"}
    if present:
        headers["Range"] = f"bytes={present}-"
        if begun.mark:
            headers["If-Range"] = begun.mark
    # If an error is raised, the partial file stays, so that the next call resumes the download.
    try:
        with urlopen(Request(url, headers=headers), timeout=timeout()) as response:
            total = _length(response.headers["Content-Length"])
            if response.status == 206:
                total = begun.length
                if response.headers["Content-Range"] != f"bytes {present}-{total - 1}/{total}":
                    partial.unlink(missing_ok=True)
                    raise FetchError(url, "the server has a new version of the file", "try again, which starts over")
            else:
                present = 0
                mark = response.headers["ETag"] or response.headers["Last-Modified"] or ""
                with whole_file(version_file) as new_version_file:
                    new_version_file.write_text(json.dumps({"mark": mark, "length": total}))
            with partial.open("ab" if present else "wb") as file:
                received = present + _copy(url, response, file, present, total or None)
    except HTTPError as error:
        if error.code == 416:
            partial.unlink(missing_ok=True)
        raise FetchError(url, f"the server answers {error.code} {error.reason}", GIVE_A_PATH) from error
    except TimeoutError as error:
        raise FetchError(url, f"the server did not answer for {timeout():g} s", _retry_advice(partial)) from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            reason = f"the server did not answer for {timeout():g} s"
            raise FetchError(url, reason, _retry_advice(partial)) from error
        raise FetchError(url, f"cannot be reached ({error.reason})", GIVE_A_PATH) from error
    except InvalidURL as error:
        raise FetchError(url, f"is not a URL ({error})") from error
    except (HTTPException, ConnectionError) as error:
        raise FetchError(url, "the connection was interrupted", _retry_advice(partial)) from error
    if received < total:
        reason = f"the connection was interrupted after {received:,} of {total:,} bytes"
        raise FetchError(url, reason, _retry_advice(partial))
    version_file.unlink(missing_ok=True)
    # The part of an earlier call may have been damaged since.
    if not total or present:
        reason = "the file was fetched in parts" if total else "the server does not state the length"
        _require_readable(url, partial, reason)


class _Version(NamedTuple):
    """The version of a file whose download was begun: the server's mark, or nothing, and the length in bytes."""

    mark: str = ""
    length: int = 0


def _begun_version(version_file: Path) -> _Version:
    """The version that an earlier call stored; one of length 0 if there is none or its file is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = parse_json(version_file.read_bytes(), version_file)
        return _Version(str(content["mark"]), int(content["length"]))
    return _Version()


def _length(header: str | None) -> int:
    """The length in bytes in the header ``Content-Length``; 0 if it is missing or invalid."""
    return int(header) if header and header.isascii() and header.isdecimal() and len(header) < 19 else 0


def _require_readable(url: str, partial: Path, why: str) -> None:
    """Reads a file whose length does not prove that it is complete and undamaged.

    Args:
        url: the URL, for messages.
        partial: the file.
        why: the reason for the check, for messages.

    Raises:
        FetchError: if the file cannot be read. It is deleted then.
    """
    try:
        if looks_like_weights(partial):
            read_checkpoint(partial)
    except UserError as error:
        partial.unlink(missing_ok=True)
        reason = str(error).removeprefix(f"{partial}: ")
        raise FetchError(url, f"{why}, and the content {reason}") from error


def _retry_advice(partial: Path) -> str:
    is_begun = partial.is_file() and partial.stat().st_size > 0
    return "try again, which resumes the download" if is_begun else f"try again, or {GIVE_A_PATH}"


def _copy(url: str, response: HTTPResponse, file: BinaryIO, present: int, total: int | None) -> int:
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
def _bar(name: str, present: int, total: int | None) -> Iterator[Callable[[int], None]]:
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, completed=present, total=total)
        yield lambda size: progress.update(task, advance=size)


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def check(file: Path, published: str, path: Path | None = None, name: str | Path | None = None) -> None:
    """Compares the checksum of a file with the published and the stored one; stores it if none is stored.

    Args:
        file: the file.
        published: the first digits of the published checksum; empty if none is published.
        path: place of the file in the cache, beside which the checksum is stored; None for ``file``.
        name: name of the file in messages; None for ``file``.

    Raises:
        FetchError: if the checksums differ.
        UserError: if the stored checksum is damaged.
    """
    checksum_file, name = _checksum_file(path or file), name or file
    digest = sha256_of(file)
    if not digest.startswith(published):
        raise FetchError(name, f"its sha256 begins with {digest[:8]}, not with {published} as published")
    stored = checksum_file.read_text(encoding="ascii", errors="replace").strip() if checksum_file.is_file() else ""
    if stored and not FULL_SHA256.fullmatch(stored):
        raise UserError(
            f"{checksum_file}: is damaged: it has no checksum; if you trust {name}, delete {checksum_file.name}"
        )
    if not stored:
        with whole_file(checksum_file) as partial:
            partial.write_text(f"{digest}\n")
    elif digest != stored:
        raise FetchError(
            name,
            f"its sha256 begins with {digest[:8]}; when it was first fetched, it began with {stored[:8]}",
            f"if you trust the new file, delete {checksum_file}",
        )


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
