"""Checks the licence of shared weights against the Hugging Face hub's list of identifiers."""

import re
from difflib import get_close_matches

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell

_FORM = re.compile(r"[A-Za-z0-9][\w.+-]*")
# https://huggingface.co/docs/hub/repositories-licenses
_LIST = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 lgpl-lr isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa
unlicense zlib pddl deepfloyd-if-license llama2 gemma unknown other
"""
_OF_THE_HUB = frozenset(_LIST.split())


def check_licence(licence: str) -> None:
    """Prints a notice with the nearest identifiers if the hub's list does not contain the licence.

    This is no error, because the hub's list grows.

    Args:
        licence: an identifier, such as ``apache-2.0``.

    Raises:
        UserError: if it is not in the form of an identifier: letters, digits, dots, hyphens and plus signs.

    Examples:
        >>> check_licence("apache-2.0")
        >>> check_licence("apache2")
        note: `licence` apache2: is not in the hub's list of licences; did you mean apache-2.0?
        For a licence that is not in the list, give other
    """
    if not _FORM.fullmatch(licence):
        raise UserError(f"`licence` {licence}: give an identifier of the hub, such as apache-2.0, cc-by-4.0 or other")
    if licence not in _OF_THE_HUB:
        nearest = get_close_matches(licence.lower(), sorted(_OF_THE_HUB), n=3, cutoff=0.6)
        question = f"did you mean {' or '.join(nearest)}? For" if nearest else "for"
        tell(
            f"note: `licence` {licence}: is not in the hub's list of licences; {question} a licence that is not in the "
            "list, give other"
        )
