"""What a cluster is asked for: where actors go, and how long nodes are waited for."""

import time

import pytest
from small import config
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.runtime import RuntimeSection
from fedbench.engine.on_ray.actors import ActorCluster
from fedbench.errors import ConfigError
from fedbench.experiment.run import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def test_actors_are_placed_as_asked(warm_pools: WarmPools) -> None:
    from ray.util.placement_group import placement_group_table

    with warm_pools.lent(RuntimeSection(actors=2, placement="pack")) as packed:
        assert placement_group_table(packed._group)["strategy"] == "PACK"
        assert len(packed.client_actors) == 2
    spread = ActorCluster(RuntimeSection(actors=1, placement="spread"), cohort=2)
    try:
        assert placement_group_table(spread._group)["strategy"] == "SPREAD"
        assert len(spread.client_actors) == 1
    finally:
        spread.close()


def test_nodes_are_waited_for_as_long_as_allowed_and_no_longer(capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"3 actors x 1 CPU = 3 CPUs asked, 2 present: set runtime\.cpus_per_client"):
        ActorCluster(RuntimeSection(actors=3, wait_for_nodes=2.0), cohort=3)
    assert 2.0 <= time.monotonic() - began < 60.0
    assert capfd.readouterr().err.startswith("waiting up to 2 s for nodes: 3 actors x 1 CPU = 3 CPUs asked, 2 present")


def test_an_actor_that_no_single_node_could_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set runtime\.cpus_per_client<=2"):
        ActorCluster(RuntimeSection(actors=1, cpus_per_client=3.0), cohort=3)


@pytest.mark.parametrize("option", ["placement=spread", "wait_for_nodes=5"])
def test_without_a_cluster_they_have_no_effect_and_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="has no effect with executor=inline"):
        ExperimentConfig.load("quickstart", ["runtime.executor=inline", f"runtime.{option}"])


@pytest.mark.usefixtures("run_folder")
def test_a_sum_per_node_gives_the_same_model_and_the_server_receives_one(warm_pools: WarmPools) -> None:
    """Wherever the server is."""
    few = "runtime.cpus_per_client=0.1"
    sums = {}
    for how, actors, server in (("actor", 2, "clients"), ("node", 1, "driver"), ("node", 2, "head")):
        places = (f"runtime.actors={actors}", f"runtime.combine={how}", f"runtime.server={server}")
        sums[how, actors] = warm_pools.run(config("rounds=2", few, *places))
    assert len({result.summary["model_sha256"] for result in sums.values()}) == 1
    one, two = (sums["node", actors].history.column("transport_bytes").to_pylist() for actors in (1, 2))
    sent_down = [part - whole for part, whole in zip(two, one, strict=True)]
    assert all(down > 0 for down in sent_down), "a second actor fetches the parameters, too"
    apart = sums["actor", 2].history.column("transport_bytes").to_pylist()
    assert all(less < more for less, more in zip(two, apart, strict=True))


@pytest.mark.usefixtures("run_folder")
def test_an_actor_that_is_alone_on_its_node_with_one_client_sends_float32(warm_pools: WarmPools) -> None:
    one_client = ("rounds=3", "runtime.actors=1", "participation.clients_per_round=1", "evaluation.every=10")
    runs = [warm_pools.run(config(*one_client, f"runtime.combine={how}")) for how in ("actor", "node")]
    assert len({result.summary["model_sha256"] for result in runs}) == 1
    first_rounds = [result.history.to_pylist()[0] for result in runs]
    for row in first_rounds:
        assert row["transport_bytes"] == row["uplink_bytes"] + row["downlink_bytes"]


@pytest.mark.parametrize("algorithm", ["median", "fedmr"])
def test_a_sum_per_node_is_refused_where_single_updates_are_looked_at(algorithm: str) -> None:
    with pytest.raises(ConfigError, match=rf"runtime\.combine=node: {algorithm} looks at single updates"):
        run(config(f"algorithm={algorithm}", "runtime.combine=node"))


@pytest.mark.parametrize("where", ["head", "clients"])
def test_the_server_is_where_it_is_wanted(where: str, warm_pools: WarmPools) -> None:
    import ray

    with warm_pools.lent(RuntimeSection(actors=1, server=where)) as cluster:
        server = cluster.create_server(Named, "a server")
        assert ray.get(server.read.remote()) == "a server"
        resources = ray.get(server.resources.remote())
        assert any(name.startswith("node:__internal_head__") for name in resources) == (where == "head")
        ray.kill(server)


class Named:
    """Stands for a server."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self) -> str:
        return self._name

    def resources(self) -> dict[str, float]:
        import ray

        assigned: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
        return assigned


def test_a_custom_resource_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"1 actors x 0\.5 A100 = 0\.5 A100 asked, 0 present"):
        ActorCluster(RuntimeSection(resources={"A100": 0.5}), cohort=2)
    with pytest.raises(ConfigError, match="set gpus_per_client"):
        config("runtime.resources.GPU=1")
