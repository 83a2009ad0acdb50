"""Fetches files of the Hugging Face hub by its client, into its cache."""

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.weights.download import FULL_SHA256, GIVE_A_PATH, FetchError, sha256_of
from tresnet_downstream.weights.shared import CONFIG, WEIGHTS

SCHEME = "hf://"
_REPOSITORY = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def in_hub_cache(source: str) -> Path | None:
    """The file ``hf://OWNER/REPOSITORY/FILE`` in the hub's cache; None if the cache does not have it.

    Raises:
        UserError: if the source has another form, or the file in the cache is damaged.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(*_hub_parts(source))
    return _checked(Path(cached)) if isinstance(cached, str) else None


def fetch_from_hub(source: str) -> Path:
    """Fetches ``hf://OWNER/REPOSITORY/FILE`` into the hub's cache, unless the cache has the file.

    Raises:
        FetchError: if it cannot be fetched.
        UserError: if the source has another form, or the file is damaged.
    """
    from huggingface_hub import constants, hf_hub_download

    if cached := in_hub_cache(source):
        return cached
    try:
        _require_name_service(constants.ENDPOINT)
        path = Path(hf_hub_download(*_hub_parts(source)))
    except Exception as error:  # The hub's client raises the errors of its HTTP library, which varies by version.
        reason = " ".join(str(error).split())[:160]
        raise FetchError(source, f"cannot be fetched from the hub ({reason})", GIVE_A_PATH) from error
    return _checked(path)


def is_repository(source: str) -> bool:
    """Whether a source is a repository, ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``, not a file of one."""
    return _REPOSITORY.fullmatch(source) is not None


def fetch_repository(source: str) -> Path:
    """Fetches the weights and the ``config.json`` of a repository of the hub into the hub's cache.

    Both files are of the same commit, which the hub returns for the revision. If the hub cannot be reached, a message
    says so and the revision in the cache is used, as with ``HF_HUB_OFFLINE``.

    Args:
        source: ``hf://OWNER/NAME``, or ``hf://OWNER/NAME@REVISION`` for a branch, tag or commit.

    Returns:
        The path of the weights.

    Raises:
        FetchError: if the files can neither be fetched nor are in the cache.
        UserError: if the repository has no ``model.safetensors``, or the file is damaged.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    match = _REPOSITORY.fullmatch(source)
    assert match is not None
    repository, revision = match[1], match[2]
    is_offline = constants.HF_HUB_OFFLINE
    try:
        if not is_offline:
            try:
                _require_name_service(constants.ENDPOINT)
            except OSError:
                is_offline = True
                tell(f"{source}: the hub cannot be reached; the revision in its cache is used")
        config = Path(hf_hub_download(repository, CONFIG, revision=revision, local_files_only=is_offline))
        # The folder's name is the commit. The weights are of the same commit, even if the branch has moved meanwhile.
        commit = config.parent.name
        path = Path(hf_hub_download(repository, WEIGHTS, revision=commit, local_files_only=is_offline))
    except LocalEntryNotFoundError as error:
        why = "is not in the hub's cache, and the hub is offline or cannot be reached"
        raise FetchError(source, why, GIVE_A_PATH) from error
    except EntryNotFoundError as error:
        raise UserError(f"{source}: has no {CONFIG} and {WEIGHTS}; name a file, as hf://OWNER/NAME/FILE") from error
    except Exception as error:  # The hub's client raises the errors of its HTTP library, which varies by version.
        reason = " ".join(str(error).split())[:160]
        raise FetchError(source, f"cannot be fetched from the hub ({reason})", GIVE_A_PATH) from error
    return _checked(path)


def _checked(path: Path) -> Path:
    # In the hub's cache, the name of a large file is its checksum.
    published = path.resolve().name
    if FULL_SHA256.fullmatch(published) and sha256_of(path) != published:
        raise UserError(f"{path}: is damaged: its checksum is not the hub's; delete {path.resolve()} and try again")
    return path


def _hub_parts(source: str) -> tuple[str, str]:
    parts = source.removeprefix("hf://").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise UserError(
            f"{source}: give hf://OWNER/REPOSITORY, hf://OWNER/REPOSITORY@REVISION or hf://OWNER/REPOSITORY/FILE"
        )
    owner, repository, file = parts
    return f"{owner}/{repository}", file


def _require_name_service(endpoint: str) -> None:
    """Raises OSError if the hub's host name cannot be resolved. The hub's client would retry for half a minute."""
    if not getproxies():
        socket.getaddrinfo(urlsplit(endpoint).hostname, 443)
