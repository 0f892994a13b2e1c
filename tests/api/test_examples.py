"""The page of examples does what it says, from top to bottom in one process."""

import re
from pathlib import Path

import pytest

import fedbench

PAGE = Path(fedbench.__file__).parent / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")


@pytest.mark.slow
@pytest.mark.usefixtures("flops_counted_once", "no_figures")
def test_every_example_runs(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(run_folder)
    names: dict[str, object] = {}
    blocks = [block[1] for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
    assert len(blocks) > 10
    for block in blocks:
        if file := FILE.match(block):
            (run_folder / file[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, f"{PAGE}: {block.splitlines()[0]}", "exec"), names)
    assert {path.name for path in run_folder.iterdir()} >= {"runs", "compared"}
    assert not (run_folder / "mlflow.db").exists()
