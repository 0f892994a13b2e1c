"""What an asynchronous run is, apart from where it runs."""

from dataclasses import dataclass

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.planning.schedules import Schedule
from fedbench.training.minibatches import LocalLength
from fedbench.training.optimizers import LearningRate


@dataclass(frozen=True)
class ArrivalPlan:
    """Who works, on what, and how many arrivals make a round.

    Attributes:
        method: its state machine, applied to every layer group by itself.
        workers: K, works in flight.
        sizes: samples of each client of the population.
        rounds: rows of the records, and rounds of schedule and learning rate.
        arrivals_per_round: updates that make a round; or None, and
        seconds_per_round: seconds of the clock that do.
        gradient: clients send the gradient of one minibatch, rather than the delta of local training.
        lr: eta, which multiplies a gradient at its arrival.
        learning_rate: factor on eta, or on the local learning rate, by round.
        local: how many minibatches local training has, and how large they are.
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
