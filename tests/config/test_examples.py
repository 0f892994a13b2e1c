"""The examples in docstrings give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["cli.new", "components.reference", "components.suggestions", "config.experiment", "config.merge"]
)
def test_examples_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"fedbench.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
