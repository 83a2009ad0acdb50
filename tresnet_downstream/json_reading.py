"""JSON parsing with limits on length, depth and numbers."""

import json
import re
from typing import Any

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.limits import excess, limit

_ESCAPED = re.compile(r"\\.", re.DOTALL)
_STRING = re.compile(r'"[^"]*"')
_OTHER_BYTES = bytes(set(range(256)) - set(b'[]{}"'))


class _ExcessError(ValueError):
    """A limit is exceeded."""


def parse_json(content: str | bytes, name: object) -> Any:
    """Parses JSON text.

    Args:
        content: the text, or UTF-8 bytes.
        name: name of the file, for messages.

    Raises:
        UserError: if the JSON is malformed, exceeds a limit of `limits.Limits`, or contains a lone surrogate.

    Examples:
        >>> parse_json('{"images": [1, 2]}', "labels.json")
        {'images': [1, 2]}
    """
    if len(content) > limit("json_bytes"):
        raise UserError(f"{name}: {excess('json_bytes', f'has {len(content)} bytes of JSON')}")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        _require_shallow(text)
        parsed = json.loads(text, parse_int=_whole_number)
        if r"\ud" in text or r"\uD" in text:
            json.dumps(parsed, ensure_ascii=False).encode()
    except _ExcessError as error:
        raise UserError(f"{name}: {error}") from error
    except UnicodeEncodeError as error:
        place = ascii(error.object[max(0, error.start - 30) : error.end + 30])
        raise UserError(
            f"{name}: malformed JSON: an unpaired surrogate (\\ud800 to \\udfff) in {place}; write the complete "
            "character"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: malformed JSON: {error}") from error
    return parsed


def _whole_number(text: str) -> int:
    if len(text) > limit("number_digits"):
        raise _ExcessError(excess("number_digits", f"holds a number of {len(text)} digits"))
    return int(text)


def _require_shallow(text: str) -> None:
    """Checks the nesting depth by counting brackets outside of strings, because the parser is recursive."""
    most = limit("json_depth")
    if "\\" in text:
        text = _ESCAPED.sub("", text)
    brackets = text.encode("utf-8", "surrogatepass").translate(None, _OTHER_BYTES).replace(b'""', b"")
    if len(brackets) <= most:
        return
    codes = np.frombuffer(_STRING.sub("", brackets.decode()).encode(), np.uint8)
    depth = np.cumsum(np.where((codes == ord("[")) | (codes == ord("{")), 1, -1), dtype=np.int64)
    if len(depth) and depth.max() > most:
        raise _ExcessError(excess("json_depth", f"contains JSON nested more than {most} levels deep"))
