"""The libraries that fedbench imports are those that it declares: no more, no fewer."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

IMPORTED_AS = {
    "pyyaml": "yaml",
    "pillow": "PIL",
    "grpcio": "grpc",
    "scikit-learn": "sklearn",
    "psycopg2-binary": "psycopg2",
    "scikit-posthocs": "scikit_posthocs",
    "huggingface-hub": "huggingface_hub",
    "pytorch-cka": "cka",
    "curvlinops-for-pytorch": "curvlinops",
}
"""{distribution: its package}, where the two names differ."""

NAMED_BY_TEXT = {"torchvision", "cmaes", "psycopg2", "playwright", "statsmodels"}
"""Imported by a library on fedbench's behalf, by a name that is put together, or by tests alone; or read as files."""


def imported() -> set[str]:
    """The top-level packages that the files of fedbench import, also by `importlib.import_module("NAME")`."""
    names: set[str] = set()
    for file in (ROOT / "fedbench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module or "")
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
                names |= {part.value for part in node.args if isinstance(part, ast.Constant)}
    return {name.partition(".")[0] for name in names} - {"fedbench"} - set(sys.stdlib_module_names)


def declared(*extras: str) -> set[str]:
    """The packages of the dependencies in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    names = {match[0].lower() for line in lines if (match := re.match(r"[A-Za-z0-9._-]+", line))}
    return {IMPORTED_AS.get(name, name) for name in names}


@pytest.mark.slow
def test_what_is_imported_is_declared() -> None:
    assert imported() - declared("privacy", "analysis", "statistics", "huggingface", "fast-sums") == set()


def test_what_is_declared_is_imported() -> None:
    extras = (
        "privacy",
        "cmaes",
        "postgresql",
        "browser",
        "analysis",
        "statistics",
        "series",
        "huggingface",
        "fast-sums",
    )
    assert declared(*extras) - imported() - NAMED_BY_TEXT == set()
