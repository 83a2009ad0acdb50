"""Parameter names of the published checkpoints, translated to ours where a backbone loads a state dict."""

import re
from collections.abc import MutableMapping
from typing import Any

# What stands in a release's block is a convolution followed by its norm in an nn.Sequential; where the
# convolution is followed by a blur pool, the pair is wrapped once more ("conv2.0.0", "conv2.0.1").
_PAIR = re.compile(r"^(.*?)conv(\d)\.(?:0\.)?([01])\.(\w+)$")
_SHORTCUT = re.compile(r"^(.*)downsample\.(?:[01]\.)([01])\.(\w+)$")


def from_release(key: str) -> str:
    """Our name for a key of the TResNet, ASL and ML-Decoder releases, given without its leading ``body.``."""
    if match := _SHORTCUT.match(key):
        block, member, name = match.groups()
        return f"{block}downsample.{'conv' if member == '0' else 'norm'}.{name}"
    if match := _PAIR.match(key):
        block, number, member, name = match.groups()
        kind = "conv" if member == "0" else "norm"
        return f"{block}{kind}{number}.{name}" if block else f"stem.{kind}.{name}"
    return key


def translate_release_keys(state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Renames, in place, the release's backbone keys that begin with ``prefix`` and ``body.``."""
    marker = f"{prefix}body."
    for key in [key for key in state_dict if key.startswith(marker)]:
        state_dict[prefix + from_release(key[len(marker) :])] = state_dict.pop(key)
