"""Which actor trains whom, and how many actors there are."""

import numpy as np
import pytest

from fedbench.engine.on_ray.placement import assign, count_actors, fitting_on_node
from fedbench.errors import ConfigError


def test_with_everyone_taking_part_and_equal_sizes_nobody_ever_moves() -> None:
    queues = assign(range(10), [50] * 10, 3, home={})
    home = {client: actor for actor, queue in enumerate(queues) for client in queue}
    assert assign(range(10), [50] * 10, 3, home) == queues


def test_one_actor_per_client_is_its_own() -> None:
    assert assign(range(5), [50] * 5, 5, home={}) == ((0,), (1,), (2,), (3,), (4,))


def test_queues_are_balanced_and_nobody_idles_while_another_has_two_waiting() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = [int(size) for size in rng.integers(1, 1000, 30)]
        cohort = sorted(int(client) for client in rng.choice(30, 12, replace=False))
        queues = assign(cohort, sizes, 4, home=dict.fromkeys(cohort, 0))
        assert sorted(client for queue in queues for client in queue) == cohort
        loads = [sum(sizes[client] for client in queue) for queue in queues]
        assert min(len(queue) for queue in queues) >= 1
        assert max(loads) - min(loads) <= max(sizes[client] for client in cohort)


def actors(**changes: float | None) -> int:
    asked = {key: changes.pop(key, None) for key in ("actors", "clients_per_actor")}
    cohort = changes.pop("cohort", 10)
    each = {"CPU": changes.get("cpus_each", 1.0)} | {
        kind: changes[f"{kind.lower()}s_each"] for kind in ("GPU", "TPU") if f"{kind.lower()}s_each" in changes
    }
    present = {kind: changes.get(f"{kind.lower()}s", 0.0) for kind in ("CPU", "GPU", "TPU")} | (
        {} if "cpus" in changes else {"CPU": 2.0}
    )
    room = fitting_on_node(present, each)
    return count_actors(cohort=cohort, **asked, each=each, present=present, room=room)


def test_as_many_actors_as_fit_and_no_more_than_participants() -> None:
    assert actors() == 2
    assert actors(cpus=64.0) == 10
    assert actors(cpus_each=0.1) == 10
    assert actors(clients_per_actor=4, cpus=8.0) == 3
    assert actors(actors=1) == 1
    assert actors(cpus=64.0, gpus=1.0, gpus_each=0.25) == 4
    assert actors(cpus=64.0, gpus=2.0, gpus_each=0.4) == 4, "none straddles two GPUs"


def test_what_cannot_be_placed_is_refused_with_numbers_and_the_way_out() -> None:
    with pytest.raises(
        ConfigError, match=r"40 actors x 0\.1 GPU = 4 GPUs asked, 1 present.*gpus_per_client<=0\.025.*10"
    ):
        actors(cohort=40, actors=40, cpus=64.0, gpus=1.0, gpus_each=0.1)
    with pytest.raises(ConfigError, match=r"5 actors x 1 CPU = 5 CPUs asked, 2 present.*cpus_per_client<=0\.4.*<=2"):
        actors(actors=5)
    with pytest.raises(
        ConfigError, match=r"asked, 0 present: set runtime\.gpus_per_client=0, or add nodes that have some$"
    ):
        actors(actors=1, gpus_each=0.5)
    with pytest.raises(ConfigError, match=r"asked, 0 present: leave runtime\.resources\.TPU out, or add nodes"):
        actors(actors=1, tpus_each=0.5)
    with pytest.raises(
        ConfigError, match=r"4 actors x 1 TPU = 4 TPU asked, 2 present: set runtime\.resources\.TPU<=0\.5 or .*<=2"
    ):
        actors(actors=4, cpus=8.0, tpus=2.0, tpus_each=1.0)
