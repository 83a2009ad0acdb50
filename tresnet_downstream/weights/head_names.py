"""Names of the published heads: how a release calls what a head of this toolkit calls otherwise.

A published head is one class, in ``classification/heads.py`` or in a file of the user's, and one entry here: it is then
recognised in files, loaded, and written in the releases' names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class HeadNames:
    """What tells a head's weights from those of other heads, and their names in a release.

    Attributes:
        marker: the name of one tensor that this head has and no head after it in :data:`HEADS`; our name, such as
            ``queries``, without the leading ``head.``.
        published: for the beginning of a name in the release (``head.fc.FC.``) that of our name (``head.fc.``). Names
            that begin otherwise are the same in both.
        in_timm: whether timm has this head too, under the names of the release.
        per_class: the name of a tensor with one row for each class; our name, as ``marker``.
    """

    marker: str
    published: Mapping[str, str] = field(default_factory=dict)
    in_timm: bool = True
    per_class: str = "fc.bias"


# By the type in a config. Of the heads whose marker is among a file's names, the last is taken.
HEADS = {
    "LinearHead": HeadNames("fc.weight"),
    "BottleneckHead": HeadNames(
        "bottleneck.weight",
        {"head.fc.embedding_generator.0.": "head.bottleneck.", "head.fc.FC.": "head.fc."},
        in_timm=False,
    ),
    "MLDecoderHead": HeadNames(
        "queries",
        {
            "head.decoder.embed_standart.": "head.embed.",
            "head.decoder.query_embed.weight": "head.queries",
            "head.decoder.duplicate_pooling_bias": "head.group_bias",
            "head.decoder.duplicate_pooling": "head.group_weight",
            "head.decoder.layers.0.": "head.decoder.",
        },
        per_class="group_bias",
    ),
}


def head_type(names: Iterable[str], published: bool = False) -> str | None:
    """The type of the head that names such as ``head.fc.weight`` are of; None if there is no known head.

    Args:
        names: of a classifier's tensors; those that do not begin with ``head.`` are passed over.
        published: whether they are a release's names and not ours.
    """
    present = set(names)
    for kind in reversed(HEADS):
        marker = f"head.{HEADS[kind].marker}"
        if (published_head_name(marker, kind) if published else marker) in present:
            return kind
    return None


def our_head_name(name: str, kind: str | None) -> str:
    """Our name for a tensor of a head of type ``kind``, given its name in a release or in timm."""
    for published, ours in HEADS[kind].published.items() if kind in HEADS else ():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    return name


def published_head_name(name: str, kind: str | None) -> str:
    """The release's name for a tensor of a head of type ``kind``, given ours."""
    for published, ours in HEADS[kind].published.items() if kind in HEADS else ():
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name


def num_classes(state_dict: Mapping[str, Tensor]) -> int:
    """How many classes the head of weights under our names has; 0 if there is no known head."""
    kind = head_type(state_dict)
    rows = state_dict.get(f"head.{HEADS[kind].per_class}") if kind else None
    return 0 if rows is None else len(rows)
