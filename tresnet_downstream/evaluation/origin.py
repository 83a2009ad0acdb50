"""Verifies that this user account wrote a run folder. Only then does a report read the image folder that the run names.

A report shows images and is often passed on. A run folder from elsewhere could name any file of this machine as an
image. Therefore ``run.json`` holds a message authentication code of the image folder's path. Its key is a file in the
cache folder of this account.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from filelock import FileLock

from tresnet_downstream.cache_folder import cache_folder
from tresnet_downstream.files import whole_file

_KEY_BYTES = 32


def origin_of(image_folder: str) -> str | None:
    """The code of a folder's path; None if no key can be stored."""
    key = _key() or _make_key()
    return _code(key, image_folder) if key else None


def is_of_this_account(origin: object, image_folder: str) -> bool:
    """Whether `origin_of` computed this code for this path with this account's key."""
    key = _key()
    return (
        bool(key) and isinstance(origin, str) and hmac.compare_digest(_code(key, image_folder).encode(), _bytes(origin))
    )


def _code(key: bytes, image_folder: str) -> str:
    return hmac.new(key, _bytes(image_folder), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _key_file() -> Path:
    return cache_folder() / "run_folders.key"


def _key() -> bytes:
    """The account's key; empty if no key can be read or written."""
    try:
        key = _key_file().read_bytes()
    except OSError:
        return b""
    return key if len(key) == _KEY_BYTES else b""


def _make_key() -> bytes:
    # Some network file systems have no locks, which is no OSError.
    with contextlib.suppress(OSError, NotImplementedError):
        _key_file().parent.mkdir(parents=True, exist_ok=True)
        # Several processes may run this at the same time, and all must get the same key.
        with FileLock(_key_file().with_suffix(".lock")):
            if not _key():
                with whole_file(_key_file()) as partial:
                    file = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600)
                    with open(file, "wb") as stream:
                        stream.write(secrets.token_bytes(_KEY_BYTES))
    return _key()
