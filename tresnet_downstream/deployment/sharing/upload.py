"""Uploads a shared folder by the hub's own client."""

import re
from pathlib import Path

from tresnet_downstream.errors import UserError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def require_repository(name: str) -> None:
    """Raises UserError unless a name is ``OWNER/NAME``."""
    if not _NAME.fullmatch(name):
        raise UserError(f"`push_to` {name}: give the repository as OWNER/NAME")


def upload(folder: Path, repository: str, private: bool) -> str:
    """Uploads a folder as one commit; makes the repository if it is not there.

    Returns:
        the repository's address.

    Raises:
        UserError: it cannot be uploaded, such as for want of a login; the folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        # `private` has no effect on a repository that is there.
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload model")
    except Exception as error:  # The hub's client raises what its HTTP library does, which changes.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{repository}: {folder} is written and cannot be uploaded ({reason}); `hf auth login` stores a token"
        ) from error
    return str(address)
