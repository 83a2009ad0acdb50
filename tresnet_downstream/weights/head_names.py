"""Names of the parameters of published heads, in the releases and in this package.

A head that is to be recognised in files of a release, loaded from them, and written with their names needs a class, in
``classification/heads.py`` or in a user's file, and an entry in :data:`HEADS`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class HeadNames:
    """How the weights of a head are recognised, and their names in a release.

    Attributes:
        marker: name of a tensor of this head in this package, without the leading ``head.``, such as ``queries``. No
            later head in :data:`HEADS` has a tensor of this name.
        published: from the beginning of a name in the release (``head.fc.FC.``) to the beginning of the name in this
            package (``head.fc.``). All other names are the same in both.
        in_timm: whether timm has this head too, with the names of the release.
        per_class: name of a tensor with one row for each class, in the form of ``marker``.
    """

    marker: str
    published: Mapping[str, str] = field(default_factory=dict)
    in_timm: bool = True
    per_class: str = "fc.bias"


# From the type in a config. If a file has the markers of several heads, its head is the last of them.
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
    """The type of the head that has names such as ``head.fc.weight``; None if no known head has them.

    Args:
        names: names of a classifier's tensors. Names that do not begin with ``head.`` are ignored.
        published: whether the names are in the style of the releases, not of this package.
    """
    present = set(names)
    for kind in reversed(HEADS):
        marker = f"head.{HEADS[kind].marker}"
        if (published_head_name(marker, kind) if published else marker) in present:
            return kind
    return None


def our_head_name(name: str, kind: str | None) -> str:
    """The name in this package of a tensor of a head of type ``kind``, from its name in a release or in timm."""
    for published, ours in HEADS[kind].published.items() if kind in HEADS else ():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    return name


def published_head_name(name: str, kind: str | None) -> str:
    """The name in a release of a tensor of a head of type ``kind``, from its name in this package."""
    for published, ours in HEADS[kind].published.items() if kind in HEADS else ():
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name


def num_classes(state_dict: Mapping[str, Tensor]) -> int:
    """The number of classes of the head in weights with the names of this package; 0 for an unknown head."""
    kind = head_type(state_dict)
    rows = state_dict.get(f"head.{HEADS[kind].per_class}") if kind else None
    return 0 if rows is None else len(rows)
