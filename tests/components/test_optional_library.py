"""A library that an extra brings, and that is missing, is one line with the command that brings it."""

import pytest

from fedbench.components.optional_library import check_library, optional_library
from fedbench.errors import ConfigError

LINE = r"^this needs the library no_such_module, which is not installed; .*pip install 'fedbench-ray\[analysis\]' .*"


def test_a_missing_library_is_said_when_it_is_looked_for() -> None:
    check_library("json", "analysis", "this")
    with pytest.raises(ConfigError, match=LINE):
        check_library("no_such_module", "analysis", "this")


def test_a_missing_library_is_said_when_it_is_imported() -> None:
    with pytest.raises(ConfigError, match=LINE), optional_library("analysis", "this"):
        import no_such_module  # noqa: F401
