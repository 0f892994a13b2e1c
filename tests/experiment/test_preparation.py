"""What is made ready before Ray starts, and what beside it."""

import importlib
import sys
import threading
import time
from pathlib import Path

import pytest
from small import config
from waiting import wait_until

from fedbench.experiment import run as module
from fedbench.experiment.preparation import Preparation
from fedbench.experiment.run import prepared


@pytest.mark.parametrize("waits", [True, False])
def test_ray_starts_beside_fedbenchs_own_parts_and_after_those_of_others(
    waits: bool, monkeypatch: pytest.MonkeyPatch, run_folder: object
) -> None:
    """Ray draws from Python's global generator when it starts, and so may a part of one's own when it is made."""
    ready: list[bool] = []
    ray_starts = threading.Event()

    def on_cluster(config: object, building: "module.Preparation[object]", warm: object) -> None:
        ready.append(building.is_done(0.0))
        ray_starts.set()
        raise KeyboardInterrupt

    def slow_build(config: object, *events: threading.Event) -> float:
        ray_starts.wait(0.3 if waits else 60)  # where nothing is waited for, however long importing Ray takes
        return 0.0

    monkeypatch.setattr(module, "EARLY_ERRORS", 0.0)
    monkeypatch.setattr(module, "EARLY_ERRORS_OF_OWN_PARTS", 0.0)
    monkeypatch.setattr(module, "_on_cluster", on_cluster)
    monkeypatch.setattr(module, "_build", slow_build)
    model = ("model=small:TwoLayers", "model.hidden=8") if waits else ()
    with pytest.raises(KeyboardInterrupt), prepared(config(*model)):
        pass
    assert ready == [waits]


def test_what_is_given_up_amid_an_import_can_be_imported_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was left by half has lost its modules: "module 'slowly' has no attribute 'part'"."""
    package = tmp_path / "slowly"
    package.mkdir()
    (package / "part.py").write_text("")
    lines = ["import time", "import slowly.part", "for _ in range(50):", "    time.sleep(0.01)"]
    (package / "__init__.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    begun = threading.Event()

    def prepare() -> None:
        begun.set()
        import slowly  # noqa: F401

        while True:
            time.sleep(0.01)

    with Preparation(prepare, lambda: False):
        begun.wait(60)
        wait_until(lambda: "slowly.part" in sys.modules, "half of the package")
    assert importlib.import_module("slowly").part
