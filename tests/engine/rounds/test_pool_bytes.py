"""What recombination costs: bytes of what a client lacks (FedMR), on the server alone with random uploads."""

from dataclasses import replace

import numpy as np
import pytest
from pools import GRANULARITIES, LAYOUT, SIZES, Granularity, Lists, send, spec

from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.fedavg import FedAvg
from fedbench.algorithms.fedcross import FedCross
from fedbench.algorithms.fedmut import FedMut
from fedbench.engine.rounds.pool_server import PoolServer
from fedbench.engine.rounds.server import Server
from fedbench.engine.rounds.server_spec import ServerSpec


@pytest.mark.parametrize("cohort", [len(SIZES), 3])
def test_full_rounds_cost_as_much_as_fedavgs(cohort: int) -> None:
    pool, plain = PoolServer(spec(cohort=cohort)), Server(replace(spec(cohort=cohort), algorithm=FedAvg()))
    whole = 4 * (LAYOUT.size + LAYOUT.statistics_size)
    for index in range(6):
        mine, theirs = pool.plan(index), plain.plan(index)
        assert mine.cohort == theirs.cohort
        assert mine.uplink_bytes == theirs.uplink_bytes == (whole,) * cohort
        assert mine.downlink_bytes == theirs.downlink_bytes == (whole,) * cohort
        for server, plan in ((pool, mine), (plain, theirs)):
            send(server, plan)
            server.finish()


def account(spec: ServerSpec, rounds: int, missing: int = -1) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(downlink as counted, downlink by comparing values) of each round: bytes of the parts that a client lacks.

    Uploads are random, so that equal values are the same values. A client holds what it last downloaded.

    Args:
        missing: a client whose updates never arrive.
    """
    server, found = PoolServer(spec), []
    held: dict[int, list[np.ndarray | None]] = {}
    for index in range(rounds):
        plan = server.plan(index)
        wanted = []
        for client in plan.cohort:
            own = server.starts((client,))
            parts = [own[segment] for _, segment in server._table.segments(server.start_parts(), server.start_parts())]
            old = held.get(client, [None] * len(parts))
            lacking = [part for part, known in zip(parts, old, strict=True) if not np.array_equal(part, known)]
            wanted.append(4 * sum(len(part) for part in lacking))
            held[client] = [part.copy() for part in parts]
        found.append((plan.downlink_bytes, tuple(wanted)))
        send(server, plan, [client for client in plan.cohort if client != missing])
        server.finish()
    return found


ROUNDS = (-1, 0, 0, 1, 2, -1, 2, 1, 0, 1, 2, 0)


@pytest.mark.parametrize("cohort", [len(SIZES), 3])
@pytest.mark.parametrize("granularity", ["group", "model"])
def test_downlink_is_what_a_client_does_not_hold(granularity: Granularity, cohort: int) -> None:
    one = spec(granularity, cohort=cohort, schedule=Lists(rounds=ROUNDS), statistics=False)
    for index, (counted, compared) in enumerate(account(one, len(ROUNDS))):
        assert counted == compared, index


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_downlink_is_no_less_than_what_is_lacking_when_a_clients_updates_never_arrive(granularity: Granularity) -> None:
    one = spec(granularity, cohort=len(SIZES), schedule=Lists(rounds=(-1, -1, 1, -1) * 10))
    for index, (counted, compared) in enumerate(account(one, 40, missing=2)):
        assert all(mine >= least for mine, least in zip(counted, compared, strict=True)), index


@pytest.mark.parametrize("statistics", [True, False])
def test_a_part_whose_tensors_were_shuffled_apart_is_new_to_everyone(statistics: bool) -> None:
    one = spec("tensor", schedule=Lists(rounds=ROUNDS), statistics=statistics)
    for index, (counted, compared) in enumerate(account(one, len(ROUNDS))):
        assert counted == compared, index


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("algorithm", [FedCross(alpha=0.7), FedMut()], ids=["fedcross", "fedmut"])
def test_what_is_mixed_is_new_to_everyone_and_mutated_alike_to_some(algorithm: Algorithm, statistics: bool) -> None:
    one = replace(spec(cohort=4, schedule=Lists(rounds=ROUNDS), statistics=statistics), algorithm=algorithm)
    for index, (counted, compared) in enumerate(account(one, len(ROUNDS))):
        assert counted == compared, index


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_pool_of_one_model_costs_what_fedavg_does(granularity: Granularity) -> None:
    """Nothing to mix: a client lacks what the others trained since it last took part."""
    one = spec(granularity, cohort=1, schedule=Lists(rounds=ROUNDS))
    servers = PoolServer(one), Server(replace(one, algorithm=FedAvg()))
    for index in range(len(ROUNDS)):
        plans = [server.plan(index) for server in servers]
        assert plans[0].downlink_bytes == plans[1].downlink_bytes
        for server, plan in zip(servers, plans, strict=True):
            send(server, plan)
            server.finish()
