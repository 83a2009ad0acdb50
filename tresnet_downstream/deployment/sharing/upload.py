"""Uploads a shared folder to the Hugging Face hub with the package ``huggingface_hub``."""

import re
from pathlib import Path

from tresnet_downstream.errors import UserError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def require_repository(name: str) -> None:
    """Checks that the name of a repository has the form ``OWNER/NAME``.

    Raises:
        UserError: if it has another form.

    Examples:
        >>> require_repository("me/digits")
        >>> require_repository("digits")
        Traceback (most recent call last):
        tresnet_downstream.errors.UserError: `push_to` digits: give the repository as OWNER/NAME
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"`push_to` {name}: give the repository as OWNER/NAME")


def upload(folder: Path, repository: str, private: bool) -> str:
    """Uploads a folder in one commit. The repository is created if it does not exist.

    Args:
        folder: the folder to upload.
        repository: ``OWNER/NAME``.
        private: whether a new repository is private. An existing repository is not changed.

    Returns:
        The URL of the repository.

    Raises:
        UserError: if the upload fails, for example because no token is stored. The folder is kept.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        # `private` has no effect if the repository exists.
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload model")
    except Exception as error:  # The client raises exceptions of its HTTP library, which depends on its version.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{repository}: {folder} was written but could not be uploaded ({reason}); `hf auth login` stores a token"
        ) from error
    return str(address)
