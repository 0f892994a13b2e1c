"""A method of one's own in a file that tests write and change, as a user would between two runs."""

import importlib
import sys
from pathlib import Path

import pytest

METHOD = """
from fedbench import Algorithm, ServerRule
from own_factor import FACTOR


class Step(Algorithm):
    \"\"\"FedAvg with a step of FACTOR.\"\"\"

    name: str = "own_method:Step"

    def rule(self):
        return Scaled()


class Scaled(ServerRule):
    def combine(self, previous, update, context):
        return previous + FACTOR * update
"""


class OwnMethod:
    """The files of "own_method:Step" in a folder from which Python imports."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        monkeypatch.syspath_prepend(folder)
        # Two versions of a file within one second, and of one length, would share their compiled form.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (folder / "own_method.py").write_text(METHOD)
        self.set_factor(1.0)

    def set_factor(self, factor: float) -> None:
        """Change the file that the method imports, and forget both as a new process would."""
        (self._folder / "own_factor.py").write_text(f"FACTOR = {factor}\n")
        self.forget()

    def forget(self) -> None:
        """Have both files imported anew."""
        importlib.invalidate_caches()
        for name in ("own_method", "own_factor"):
            sys.modules.pop(name, None)
