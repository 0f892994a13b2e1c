"""One result, however the clients of a round are shared out: messages one by one, sums of any subset, or both."""

from itertools import pairwise

import numpy as np
import pytest
import small

from fedbench.engine.client_host import ClientHost
from fedbench.engine.rounds.server import Server
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem

pytestmark = pytest.mark.slow

CUTS = ((0, 6), (0, 1, 6), (0, 1, 2, 4, 6))
"""Borders between the queues of the hosts, of six clients."""


def model_after_two_rounds(cuts: tuple[int, ...], options: tuple[str, ...], sums_everywhere: bool) -> np.ndarray:
    config = small.config(
        "data.clients=6", "model.width=4", "local.optimizer.name=sgd", "local.optimizer.lr=0.05", *options
    )
    federation = load_federation(config)
    problem = build_problem(config, federation)
    server = Server(problem.server)
    everything = tuple(range(len(problem.spec.table.parts)))
    hosts = [ClientHost() for _ in pairwise(cuts)]
    for host in hosts:
        host.prepare(problem.spec, federation.data, federation.rows)
    for index in range(2):
        plan = server.plan(index)
        payload = server.payload(everything).copy()
        for host, (start, stop) in zip(hosts, pairwise(cuts), strict=True):
            queue = plan.cohort[start:stop]
            combine = sums_everywhere or len(queue) > 1
            order = plan.order(queue, stale=everything, combine=combine, on_failure="raise")
            upload, report = host.train(order, payload)
            assert upload.dtype == (np.int64 if combine else np.float32)
            server.receive(upload, tuple(client.client for client in report.clients if client.status == "ok"))
        server.finish()
    return np.concatenate(server.model())


@pytest.mark.parametrize(
    "options",
    [
        ("algorithm=fedavg", "data.samples_per_client=24"),
        ("algorithm=fednova",),
        ("algorithm=scaffold", "data.samples_per_client=24"),
    ],
    ids=["fedavg", "fednova", "scaffold"],
)
def test_the_model_does_not_depend_on_who_is_summed_with_whom(options: tuple[str, ...]) -> None:
    reference = model_after_two_rounds(CUTS[0], options, sums_everywhere=True)
    assert np.isfinite(reference).all()
    for cuts in CUTS[1:]:
        for sums_everywhere in (True, False):
            np.testing.assert_array_equal(model_after_two_rounds(cuts, options, sums_everywhere), reference)
