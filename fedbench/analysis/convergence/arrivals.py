"""Asynchronous SGD on a known problem: fedbench's state machines on fedbench's virtual clock.

OrMo's theorems bound the mean of E||grad f(w_t)||^2 over T arrivals without a bound on the largest delay. What they use
is that the delays tau_t, the number of arrivals between a gradient's parameters and its own arrival, sum up to at most
(K - 1) T: each arrival makes K - 1 others older by one.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.algorithms.arrivals import Array, AsyncAlgorithm
from fedbench.algorithms.base import Values
from fedbench.analysis.convergence.problems import KnownProblem
from fedbench.engine.arrivals.clocks import VirtualClock
from fedbench.engine.messages import TaskOrder
from fedbench.planning.delays import DelaysSection


@dataclass(frozen=True)
class ArrivalTrace:
    """What was measured at each arrival.

    Attributes:
        whole: float64 [T], ||grad f(w_t)||^2 before arrival t is applied.
        delays: int64 [T], tau_t.
    """

    whole: Values
    delays: npt.NDArray[np.int64]


def follow_arrivals(
    problem: KnownProblem,
    algorithm: AsyncAlgorithm,
    delays: DelaysSection,
    *,
    workers: int,
    arrivals: int,
    lr: float,
    seed: int,
) -> ArrivalTrace:
    """Let K workers compute gradients, each on the parameters that it was sent when its last gradient arrived.

    Args:
        problem: gives the gradients.
        algorithm: gives the state machine, which holds all parameters as one layer group.
        delays: the distribution of the service times, and the slow workers.
        workers: K.
        arrivals: T, number of gradients that are applied.
        lr: eta.
        seed: seed of the run.
    """
    clock = VirtualClock(delays, seed, workers)
    machine = algorithm.machine(problem.start.copy(), workers)
    sent: dict[int, tuple[TaskOrder, Values, int]] = {}
    dispatched, visits = 0, [0] * workers

    def dispatch(worker: int, parameters: Array, index: int, now: float) -> None:
        nonlocal dispatched
        order = TaskOrder(
            number=dispatched,
            worker=worker,
            client=worker,
            visit=visits[worker],
            groups=(0,),
            stale=(),
            lr_factor=1.0,
            gradient=True,
        )
        clock.dispatched(order, now, 1.0, 0)
        sent[order.number] = (order, np.asarray(parameters, np.float64), index)
        dispatched, visits[worker] = dispatched + 1, visits[worker] + 1

    for worker in range(workers):
        dispatch(worker, *machine.pull(worker), 0.0)
    whole, taus = np.empty(arrivals), np.empty(arrivals, np.int64)
    for t in range(arrivals):
        end = clock.next(math.inf)
        assert end is not None  # K tasks are always in flight
        order, parameters, index = sent.pop(end.number)
        gradient = problem.gradient(np.asarray(machine.parameters, np.float64))
        whole[t], taus[t] = float(gradient @ gradient), t - index
        update = problem.worker_gradient(parameters, seed, order.client, order.visit)
        dispatch(order.worker, *machine.push(update, index, order.worker, lr), end.seconds)
    return ArrivalTrace(whole, taus)
