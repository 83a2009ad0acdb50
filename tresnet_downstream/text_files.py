"""Reading of text files from untrusted sources, and checks of lists of names."""

import os
import posixpath
from collections.abc import Sequence
from typing import TypeAlias

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import open_regular

File: TypeAlias = str | os.PathLike[str]


def read_text(file: File) -> str:
    """The text of a UTF-8 file, with or without byte order mark.

    Raises:
        UserError: if the file cannot be read or is not UTF-8.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}: not UTF-8 in line {line}; save it in that encoding") from error


def refuse_duplicates(file: File, what: str, values: Sequence[object]) -> None:
    """Raises UserError if a value occurs twice; ``what`` describes the values in the message."""
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{file}: the {what} {value!r} is there twice")
        seen.add(value)


def same_file_name(name: str) -> str:
    """A normalised path: ``./a.jpg`` and ``b/../a.jpg`` become ``a.jpg``.

    Examples:
        >>> same_file_name("b/../a.jpg")
        'a.jpg'
    """
    return posixpath.normpath(name) if "/" in name else name


def refuse_repeated_images(file: File, names: Sequence[str]) -> None:
    """Raises UserError if an image occurs twice, also with two spellings of its path."""
    first: dict[str, str] = {}
    for name in names:
        before = first.setdefault(same_file_name(name), name)
        if before != name:
            raise UserError(f"{file}: the file_names {before!r} and {name!r} are the same image; list it once")
    refuse_duplicates(file, "file_name", names)
