"""What identifies a part of one's own: its source file, the own files that it imports, and nothing else."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbench.components.own_code import own_code, own_sources
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError

FILES = {
    "part_a.py": "import json\nimport numpy\nfrom part_b import factor\nraise RuntimeError('executed')\n",
    "part_b.py": "def factor():\n    import part_c.inner\n    return 1\n",
    "part_c/__init__.py": "",
    "part_c/inner.py": "from . import sibling\nfrom ..elsewhere import nothing\n",
    "part_c/sibling.py": "import part_a\n",
    "unrelated.py": "x = 1\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("part_")]:
        del sys.modules[name]


def test_the_own_files_that_a_part_imports_are_found_and_none_is_executed(folder: Path) -> None:
    assert own_sources("part_a") == {
        "part_a": folder / "part_a.py",
        "part_b": folder / "part_b.py",
        "part_c": folder / "part_c/__init__.py",
        "part_c.inner": folder / "part_c/inner.py",
        "part_c.sibling": folder / "part_c/sibling.py",
    }
    assert not {"part_a", "part_b", "part_c"} & set(sys.modules)


@pytest.mark.parametrize("name", ["part_a.py", "part_b.py", "part_c/sibling.py", "part_c/__init__.py"])
def test_a_change_in_any_of_them_makes_other_content(folder: Path, name: str) -> None:
    before = own_code({"model": {"name": "part_a:Net"}})
    assert own_code({"model": {"name": "part_a:Net"}}) == before
    (folder / name).write_text(FILES[name] + "# changed\n")
    after = own_code({"model": {"name": "part_a:Net"}})
    assert list(after) == list(before) == ["part_a:Net"]
    assert after != before


def test_a_change_elsewhere_makes_none(folder: Path) -> None:
    before = own_code({"model": {"name": "part_a:Net"}})
    (folder / "unrelated.py").write_text("x = 2\n")
    assert own_code({"model": {"name": "part_a:Net"}}) == before


def test_a_part_is_found_wherever_a_value_names_it(folder: Path) -> None:
    values = {"space": {"model": {"choices": ["cnn", "part_b:Net"]}}, "made_by": "part_c.inner:make"}
    assert set(own_code(values)) == {"part_b:Net", "part_c.inner:make"}


def test_a_part_of_an_installed_package_is_identified_by_its_version() -> None:
    assert own_code({"model": {"name": "pydantic.main:BaseModel"}}) == {
        "pydantic.main:BaseModel": f"pydantic {importlib.import_module('pydantic').VERSION}"
    }


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "json.decoder:JSONDecoder", "no_such_module:X", "a: b", "1:2"]
)
def test_what_is_no_own_part_has_no_content(name: str) -> None:
    assert own_code({"model": {"name": name}}) == {}


def test_a_file_that_changed_after_it_was_imported_is_refused_until_it_is_imported_again(folder: Path) -> None:
    (folder / "part_d.py").write_text("x = 1\n")
    module = importlib.import_module("part_d")
    before = own_code("part_d:X")
    (folder / "part_d.py").write_text("x = 2  # another length\n")
    with pytest.raises(ConfigError, match=r"part_d\.py: has changed since this process imported it; start again"):
        own_code("part_d:X")
    importlib.reload(module)
    assert own_code("part_d:X") != before


def test_builtin_parts_alone_leave_the_identity_of_a_configuration_as_it_is() -> None:
    assert ExperimentConfig.load("quickstart").own_code() == {}
    assert list(ExperimentConfig.load("quickstart", ["algorithm=small:Faulty"]).own_code()) == ["small:Faulty"]
