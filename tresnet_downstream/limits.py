"""Limits on what is read: sizes that files from strangers may not exceed, with a default and a variable for each."""

import os
from dataclasses import dataclass, fields

from tresnet_downstream.errors import UserError

PREFIX = "TRESNET_MAX_"


@dataclass(frozen=True)
class Limits:
    """The largest sizes that are read; each is raised by the environment variable ``TRESNET_MAX_`` and its name.

    Attributes:
        pixels: of an image, height times width.
        aspect: of an image, the longer side over the shorter.
        scans: of a JPEG file. Encoders write about 10; each takes about as long as the whole of an ordinary file.
        expansion: bytes unpacked for each packed byte, of weight files and of the files in a run folder.
        json_bytes: of JSON text, unpacked.
        json_depth: of lists and objects within each other in JSON.
        xml_bytes: of an XML file.
        number_digits: of a whole number in JSON.
        download_bytes: of a file that is fetched.
    """

    pixels: int = 2**26
    aspect: int = 200
    scans: int = 32
    expansion: int = 100
    json_bytes: int = 2**31
    json_depth: int = 100
    xml_bytes: int = 2**24
    number_digits: int = 100
    download_bytes: int = 2**34


# Below this many bytes no expansion is too much: a short text may be one letter, repeated.
SMALL = 2**20


def limit(name: str) -> int:
    """One of the :class:`Limits`: its variable's value, or else its default.

    Raises:
        UserError: the variable's value is no whole number of 1 or more.
    """
    variable = PREFIX + name.upper()
    value = os.environ.get(variable)
    if value is None:
        return _DEFAULTS[name]
    if not (value.isascii() and value.isdecimal() and len(value) < 19 and int(value) > 0):
        raise UserError(f"{variable}={value}: give a whole number, at least 1")
    return int(value)


_DEFAULTS: dict[str, int] = {field.name: int(str(field.default)) for field in fields(Limits)}


def excess(name: str, what: str) -> str:
    """The words of a refusal: ``what`` exceeds the limit ``name``, and how to raise it."""
    return f"{what}, above the limit of {limit(name):,}; if you trust it, raise {PREFIX}{name.upper()}"


def unpacked_limit(packed: int) -> int:
    """How many bytes may come out of ``packed`` compressed ones."""
    return max(SMALL, packed * limit("expansion"))
