"""The plan of an asynchronous run: everything about it but the place where it is computed."""

from dataclasses import dataclass

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.planning.schedules import Schedule
from fedbench.planning.worlds import World
from fedbench.training.minibatches import LocalLength
from fedbench.training.optimizers import LearningRate


@dataclass(frozen=True)
class ArrivalPlan:
    """The settings of an asynchronous run.

    Attributes:
        method: gives the state machine that is applied to every layer group by itself.
        workers: K, the number of tasks in flight.
        sizes: training samples of each client of the population.
        schedule: which layer groups a task trains, by round.
        seed: seed of the experiment.
        rounds: rows of the records, which are also the rounds of schedule and learning rate.
        arrivals_per_round: updates that make a round; None where `seconds_per_round` is set.
        seconds_per_round: seconds of the clock that make a round; None where `arrivals_per_round` is set.
        gradient: whether clients send the gradient of one minibatch rather than the delta of local training.
        lr: eta, which multiplies a gradient at its arrival.
        learning_rate: factor on eta, or on the local learning rate, by round.
        local: number and sizes of the minibatches of local training.
        attackers: the Byzantine clients.
        world: devices, links and times of the clients, which give the service times; None: the clock draws them.
        task_seconds: mean service time of a full update on these devices; None: `delays.mean_seconds`.
    """

    method: AsyncAlgorithm
    workers: int
    sizes: tuple[int, ...]
    schedule: Schedule
    seed: int
    rounds: int
    arrivals_per_round: int | None
    seconds_per_round: float | None
    gradient: bool
    lr: float
    learning_rate: LearningRate
    local: LocalLength
    attackers: frozenset[int] = frozenset()
    world: World | None = None
    task_seconds: float | None = None
