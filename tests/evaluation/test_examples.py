"""The examples in the docstrings of `evaluation/` run, and its public functions have examples."""

import doctest
import importlib
import pkgutil

import pytest

from tresnet_downstream import evaluation

MODULES = sorted(module.name for module in pkgutil.walk_packages(evaluation.__path__, "tresnet_downstream.evaluation."))
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


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_public_functions_have_examples(name):
    function = getattr(evaluation, name)
    assert "Examples:" in function.__doc__
    assert doctest.DocTestFinder().find(function, name)[0].examples
