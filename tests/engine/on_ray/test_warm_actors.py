"""Actors that outlive an experiment: the next one takes them over, and cannot tell."""

from collections.abc import Iterator

import pytest
import ray
import small

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.warm_actors import WarmActors
from fedbench.errors import ClientFailure
from fedbench.experiment.run import run

pytestmark = [pytest.mark.usefixtures("local_ray", "run_folder"), pytest.mark.slow]

QUICK = ("rounds=2", "data.clients=4", "data.samples_per_client=40", "model.width=2", "runtime.actors=1")
CHAIN = {
    "stateful clients, statistics of their own": small.config(
        *QUICK, "schedule=full", "algorithm=scaffold", "local.batchnorm=local", "local.optimizer=sgd"
    ),
    "partial updates, compressed": small.config(*QUICK, "update.compression=int8"),
    "a pool of models": small.config(*QUICK, "schedule=full", "algorithm=fedmr"),
    "arrivals": small.asynchronous("runtime.actors=1"),
    "partial updates, two threads": small.config(*QUICK, "runtime.torch_threads=2", "seed=5"),
    "arrivals, another method": small.asynchronous("runtime.actors=1", "algorithm=smega2", "seed=3"),
}


@pytest.fixture(scope="module")
def warm(local_ray: None) -> Iterator[WarmActors]:
    actors = WarmActors()
    yield actors
    actors.close()


def digest(config: ExperimentConfig, warm: WarmActors | None) -> str:
    return str(run(config, should_stop=lambda: False, warm=warm).summary["model_sha256"])


def processes(warm: WarmActors, config: ExperimentConfig) -> list[int]:
    cluster = warm.lend(config.runtime, config.slots())
    return ray.get([actor.__ray_call__.remote(small.process_of) for actor in cluster.client_actors])


def inline(config: ExperimentConfig) -> ExperimentConfig:
    values = config.to_mapping()
    values["runtime"] = {"executor": "inline", "torch_threads": values["runtime"]["torch_threads"]}
    return ExperimentConfig.from_mapping(values)


def test_one_process_after_the_other_experiment_gives_the_results_of_fresh_ones(warm: WarmActors) -> None:
    first = processes(warm, CHAIN["arrivals"])
    for name, config in CHAIN.items():
        assert digest(config, warm) == digest(inline(config), None), name
    again = CHAIN["partial updates, compressed"]
    assert digest(again, warm) == digest(inline(again), None)
    assert processes(warm, again) == first


def test_actors_that_died_meanwhile_are_replaced(warm: WarmActors) -> None:
    config = small.config(*QUICK)
    (first,) = processes(warm, config)
    cluster = warm.lend(config.runtime, config.slots())
    for actor in cluster.all_actors():
        ray.kill(actor)
    assert processes(warm, config) != [first]


def test_an_experiment_that_wants_other_actors_gets_them_and_closing_after_its_failure_leaves_no_places_taken(
    warm: WarmActors,
) -> None:
    sound = small.config(*QUICK)
    (first,) = processes(warm, sound)
    one_label_each = ("data.partition=shards", "data.partition.shards_per_client=1", "data.clients=10")
    broken = small.config("rounds=2", "model.width=2", "runtime.actors=2", "algorithm=small:Faulty", *one_label_each)
    with pytest.raises(ClientFailure):
        digest(broken, warm)
    two = processes(warm, broken)
    assert len(two) == 2
    assert first not in two
    warm.close()
    assert len(processes(warm, sound)) == 1
