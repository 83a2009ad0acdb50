"""Shows in Markdown what docstrings have of reStructuredText: roles such as ``:func:`load_model```, and tables."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([^`]+)`")
_RULE = re.compile(r"=+( +=+)+")


def as_markdown(text: str) -> str:
    r"""The text with roles as names in backquotes, simple tables as those of Markdown, and ``::`` as ``:``.

    Examples:
        >>> as_markdown("see :func:`~tresnet_downstream.load_model`")
        'see `tresnet_downstream.load_model`'
        >>> print(as_markdown("== ==\na  b\n== ==\n1  2\n== =="))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    return _with_tables(re.sub(r"::$", ":", _ROLE.sub(r"`\1`", text), flags=re.MULTILINE))


def _with_tables(text: str) -> str:
    lines: list[str] = []
    spans: list[tuple[int, int]] = []
    rules = 0
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        if _RULE.fullmatch(line.strip()):
            rules += 1
            if rules == 1:
                starts = [match.start() for match in re.finditer("=+", line)]
                spans = list(zip(starts, [*starts[1:], 1000], strict=True))
            elif rules == 2:
                lines.append(indent + "|" + "---|" * len(spans))
            else:
                rules = 0
        elif rules:
            lines.append(indent + "| " + " | ".join(line[start:end].strip() for start, end in spans) + " |")
        else:
            lines.append(line)
    return "\n".join(lines)


class Docstrings(griffe.Extension):
    """Changes the docstrings before mkdocstrings reads them."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
