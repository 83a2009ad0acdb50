"""The files of results: strict JSON, CSV, and files that appear only when they are complete."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import named_if_unwritable, whole_file
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.text_files import read_text


def plain(value: object) -> Any:
    """Converts numpy types and paths to types of strict JSON; numbers that are not finite become None.

    Examples:
        >>> plain({"scores": np.array([0.5, np.nan])})
        {'scores': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def json_text(content: Mapping[str, object]) -> str:
    """Encodes a value as strict JSON, in which numbers that are not finite are null."""
    return json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_versioned(path: str | os.PathLike[str], name: str, version: int, hint: str) -> dict[str, Any]:
    """Reads a JSON file that states its format and version.

    Args:
        path: the file.
        name: name of the required format.
        version: newest version of the format that can be read.
        hint: how such files are created, for the error message.

    Raises:
        UserError: if the file is missing, malformed, of another format or of a newer version.
    """
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict) or content.get("format") != name:
        raise UserError(f"{path}: is not of the format {name}; {hint}")
    stored = content.get("version")
    if type(stored) is not int or not 1 <= stored <= version:
        raise UserError(f"{path}: has version {stored!r} of its format, and this toolkit reads {version}; update it")
    return content


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    r"""Encodes rows as CSV with a header.

    Examples:
        >>> csv_text(("class", "ap"), [{"class": "cat", "ap": 97.5}])
        'class,ap\ncat,97.5\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_files(folder: str | Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Writes files into ``folder``, which is created if it does not exist; each appears only when it is complete.

    Raises:
        UserError: If the folder cannot be written to.
    """
    folder = Path(folder)
    with named_if_unwritable(folder, "cannot be written to", "choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with whole_file(folder / name) as partial:
                if isinstance(content, bytes):
                    partial.write_bytes(content)
                else:
                    partial.write_text(content, encoding="utf-8", newline="")
    return [folder / name for name in contents]
