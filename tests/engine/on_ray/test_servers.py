"""How a run reaches its server: calls, references, and errors, in an actor and in its own process."""

import gc
from typing import Any

import numpy as np
import pytest
from small import asynchronous, config

from fedbench import run
from fedbench.engine.on_ray.experiment_actors import ActorExecutor
from fedbench.engine.on_ray.servers import ServerHere, ServerInActor, ServerLink
from fedbench.errors import RunError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


class Adder:
    """Stands for a server."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._values = spec["values"].copy()
        self.spec = spec

    def add(self, *values: np.ndarray) -> int:  # type: ignore[type-arg]
        self._values += sum(values)
        return len(values)

    def both(self) -> tuple[Any, str]:
        return self._values, "second"

    def values(self) -> Any:
        return self._values

    def spoil(self) -> None:
        self.spec["values"] = None

    def write(self) -> None:
        self.spec["values"][0] = 1.0

    def fail(self) -> None:
        raise ZeroDivisionError("by nothing")


@pytest.fixture(params=["driver", "actor"])
def link(request: pytest.FixtureRequest) -> ServerLink:
    import ray

    spec = {"values": np.zeros(3)}
    if request.param == "actor":
        return ServerInActor(ray.remote(Adder).options(num_cpus=0).remote(spec), ray.get)
    return ServerHere(Adder, spec, ray.get, ray.put)


def test_calls_are_made_in_order_and_references_are_given_as_values(link: ServerLink) -> None:
    import ray

    link.tell("add", ray.put(np.ones(3)), np.full(3, 2.0), ray.put(np.full(3, 4.0)))
    published = link.publish("values")
    first = link.publish_first("both")
    link.tell("add", np.ones(3))
    assert link.settle() == [3, "second", 1]
    assert link.settle() == []
    assert [ray.get(reference).tolist() for reference in (published, first)] == [[7.0] * 3] * 2
    assert link.ask("values").tolist() == [8.0] * 3


def test_a_server_in_the_run_s_process_has_a_spec_of_its_own() -> None:
    """What it changes in it is not there when the server is made anew."""
    import ray

    spec = {"values": np.zeros(3)}
    link = ServerHere(Adder, spec, ray.get, ray.put)
    with pytest.raises(RunError, match="read-only"):
        link.ask("write")
    link.ask("spoil")
    assert spec["values"].tolist() == [0.0] * 3


def test_an_error_of_foreign_code_names_itself() -> None:
    import ray

    link = ServerHere(Adder, {"values": np.zeros(3)}, ray.get, ray.put)
    with pytest.raises(RunError, match=r"^the server failed: ZeroDivisionError: by nothing$"):
        link.ask("fail")


@pytest.mark.parametrize("server", ["auto", "head"])
@pytest.mark.parametrize("experiment", [config, asynchronous])
def test_nothing_of_a_run_stays_in_memory_until_python_looks_for_circles(experiment: Any, server: str) -> None:
    """The data in Ray's object store would stay, too, for each run of a suite or a study."""

    def executors() -> int:
        return sum(isinstance(thing, ActorExecutor) for thing in gc.get_objects())

    before = executors()
    gc.disable()
    try:
        run(experiment("runtime.actors=1", f"runtime.server={server}", "rounds=1"))
        assert executors() == before
    finally:
        gc.enable()
