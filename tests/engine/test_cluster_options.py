"""What a cluster is asked for: where actors go, and how long nodes are waited for."""

import time

import pytest

from fedbench.config import ExperimentConfig, RuntimeSection
from fedbench.engine.cluster import Cluster
from fedbench.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


@pytest.mark.parametrize("placement", ["pack", "spread"])
def test_actors_are_placed_as_asked(placement: str) -> None:
    from ray.util.placement_group import placement_group_table

    cluster = Cluster(RuntimeSection(actors=2, placement=placement), cohort=2)
    try:
        assert cluster._group is not None
        assert placement_group_table(cluster._group)["strategy"] == placement.upper()
        assert len(cluster.clients) == 2
    finally:
        cluster.close()


def test_nodes_are_waited_for_as_long_as_allowed_and_no_longer(capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"3 actors x 1 CPU = 3 CPUs asked, 2 present: set runtime\.cpus_per_client"):
        Cluster(RuntimeSection(actors=3, wait_for_nodes=2.0), cohort=3)
    assert 2.0 <= time.monotonic() - began < 20.0
    assert capfd.readouterr().err.startswith("waiting up to 2 s for nodes: 3 actors x 1 CPU = 3 CPUs asked, 2 present")


def test_an_actor_that_no_single_node_could_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set runtime\.cpus_per_client<=2"):
        Cluster(RuntimeSection(actors=1, cpus_per_client=3.0), cohort=3)


@pytest.mark.parametrize("option", ["placement=spread", "wait_for_nodes=5"])
def test_without_a_cluster_they_have_no_effect_and_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="has no effect with executor=inline"):
        ExperimentConfig.load("quickstart", ["runtime.executor=inline", f"runtime.{option}"])
