"""Shows the roles of Sphinx in docstrings, such as ``:func:`load_model```, as code: Markdown does not know them."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([^`]+)`")


def as_code(text: str) -> str:
    """The text with each role as the name that it refers to, in backquotes.

    Examples:
        >>> as_code("see :func:`~tresnet_downstream.load_model`")
        'see `tresnet_downstream.load_model`'
    """
    return _ROLE.sub(r"`\1`", text)


class SphinxRoles(griffe.Extension):
    """Changes the docstrings before mkdocstrings reads them."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = as_code(obj.docstring.value)
