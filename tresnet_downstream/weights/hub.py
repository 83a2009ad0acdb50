"""Files of the Hugging Face hub, by its own client and in its own cache."""

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
    """The file of ``hf://OWNER/REPOSITORY/FILE`` in the hub's cache; None if it is not there.

    Raises:
        UserError: if the source has another form, or the file in the cache is damaged.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(*_hub_parts(source))
    return _checked(Path(cached)) if isinstance(cached, str) else None


def fetch_from_hub(source: str) -> Path:
    """The file of ``hf://OWNER/REPOSITORY/FILE``, fetched into the hub's cache if it is not there.

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
    except Exception as error:  # The hub's client raises what its HTTP library does, which changes.
        reason = " ".join(str(error).split())[:160]
        raise FetchError(source, f"cannot be fetched from the hub ({reason})", GIVE_A_PATH) from error
    return _checked(path)


def is_repository(source: str) -> bool:
    """Whether a source is ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``, and not a file of a repository."""
    return _REPOSITORY.fullmatch(source) is not None


def fetch_repository(source: str) -> Path:
    """The weights of ``hf://OWNER/NAME[@REVISION]``, a branch, tag or commit, in the hub's cache.

    They lie beside their ``config.json``.
    The hub is asked what the revision is now. If it cannot be reached, or ``HF_HUB_OFFLINE`` is set, what the cache
    has of it is taken, and a line says so. Both files are of one commit.

    Raises:
        FetchError: the hub does not give them, and the cache does not have them.
        UserError: the repository has no ``model.safetensors``, or the file is damaged.
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
                tell(f"{source}: the hub cannot be reached; what its cache has is taken")
        config = Path(hf_hub_download(repository, CONFIG, revision=revision, local_files_only=is_offline))
        # Of the same commit, which names the folder, also if the branch moves meanwhile.
        commit = config.parent.name
        path = Path(hf_hub_download(repository, WEIGHTS, revision=commit, local_files_only=is_offline))
    except LocalEntryNotFoundError as error:
        why = "is not in the hub's cache, and the hub is not asked or cannot be reached"
        raise FetchError(source, why, GIVE_A_PATH) from error
    except EntryNotFoundError as error:
        raise UserError(f"{source}: has no {CONFIG} and {WEIGHTS}; name a file, as hf://OWNER/NAME/FILE") from error
    except Exception as error:  # The hub's client raises what its HTTP library does, which changes.
        reason = " ".join(str(error).split())[:160]
        raise FetchError(source, f"cannot be fetched from the hub ({reason})", GIVE_A_PATH) from error
    return _checked(path)


def _checked(path: Path) -> Path:
    # The hub's cache names a large file by its checksum.
    published = path.resolve().name
    if FULL_SHA256.fullmatch(published) and sha256_of(path) != published:
        raise UserError(f"{path}: is damaged: not the hub's checksum; delete {path.resolve()} and fetch again")
    return path


def _hub_parts(source: str) -> tuple[str, str]:
    parts = source.removeprefix("hf://").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise UserError(
            f"{source}: give hf://OWNER/REPOSITORY, with @REVISION if need be, or hf://OWNER/REPOSITORY/FILE"
        )
    owner, repository, file = parts
    return f"{owner}/{repository}", file


def _require_name_service(endpoint: str) -> None:
    """Raises OSError if the hub's name cannot be resolved: its client would try for half a minute before it says so."""
    if not getproxies():
        socket.getaddrinfo(urlsplit(endpoint).hostname, 443)
