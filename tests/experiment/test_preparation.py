"""What is made ready before Ray starts, and what beside it."""

import threading

import pytest
from small import config

from fedbench.experiment import run as module
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
