"""Limits for files from untrusted sources, each with a default and an environment variable."""

import os
from dataclasses import dataclass, fields

from tresnet_downstream.errors import UserError

PREFIX = "TRESNET_MAX_"


@dataclass(frozen=True)
class Limits:
    """Default limits. The environment variable ``TRESNET_MAX_NAME`` replaces the limit ``name``.

    Attributes:
        pixels: height times width of an image.
        aspect: ratio of the longer and the shorter side of an image.
        scans: number of scans of a JPEG file. Encoders write about 10; decoding each of them takes about as long as
            decoding a baseline file.
        expansion: unpacked bytes for each packed byte, for weight files and files of a run folder.
        json_bytes: length of JSON text in bytes, unpacked.
        json_depth: nesting depth of JSON.
        xml_bytes: size of an XML file in bytes.
        number_digits: number of digits of an integer in JSON.
        download_bytes: size of a downloaded file in bytes.
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


# Up to this many unpacked bytes, ``expansion`` is not checked: a short text may consist of one repeated letter.
SMALL = 2**20


def limit(name: str) -> int:
    """The value of a limit: that of its environment variable, or else its default.

    Raises:
        UserError: if the variable's value is not a whole number of at least 1.
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
    """The message that ``what`` exceeds the limit ``name``, and how to raise the limit."""
    return f"{what}, above the limit of {limit(name):,}; if you trust it, raise {PREFIX}{name.upper()}"


def unpacked_limit(packed: int) -> int:
    """The largest unpacked size, in bytes, that is allowed for ``packed`` bytes."""
    return max(SMALL, packed * limit("expansion"))
