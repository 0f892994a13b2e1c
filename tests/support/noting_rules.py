"""Methods that note how many threads NumPy's linear algebra has while their rules compute."""

from threadpoolctl import threadpool_info

from fedbench import Algorithm, AsyncAlgorithm, ServerRule
from fedbench.algorithms.arrivals import Array, ArrivalRule
from fedbench.algorithms.base import Needs, RuleContext, Values
from fedbench.protocol.model_pool import ModelPool

noted: list[int] = []


def blas_threads() -> int:
    return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


class OfMeans(Algorithm):
    """The average."""

    name: str = "noting_rules:OfMeans"

    def rule(self) -> ServerRule:
        return MeanRule()


class MeanRule(ServerRule):
    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        noted.append(blas_threads())
        return previous + update


class OfPools(Algorithm):
    """One model for each participant, which it keeps."""

    name: str = "noting_rules:OfPools"

    def rule(self) -> ServerRule:
        return PoolRule()


class PoolRule(ServerRule):
    own_models = True

    def needs(self, round_index: int) -> Needs:
        return "round"

    def recombine(self, pool: ModelPool, context: RuleContext) -> None:
        noted.append(blas_threads())


class OfArrivals(AsyncAlgorithm):
    """Asynchronous SGD."""

    name: str = "noting_rules:OfArrivals"

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return Machine(parameters, workers)


class Machine(ArrivalRule):
    def pull(self, worker: int) -> tuple[Array, int]:
        noted.append(blas_threads())
        return super().pull(worker)

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        noted.append(blas_threads())
        self.parameters = self.parameters - lr * update
