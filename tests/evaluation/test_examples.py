"""The public functions of `evaluation/` have examples; tests/test_docstring_examples.py runs them."""

import doctest

import pytest

from tresnet_downstream import evaluation

WITH_EXAMPLES = (
    "average_precision",
    "detection_scores",
    "format_detection_table",
    "format_single_label_table",
    "format_table",
    "multilabel_scores",
    "read_run",
    "single_label_scores",
    "voc_scores",
    "write_multilabel_run",
    "write_scores",
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_public_functions_have_examples(name):
    function = getattr(evaluation, name)
    assert "Examples:" in function.__doc__
    assert doctest.DocTestFinder().find(function, name)[0].examples
