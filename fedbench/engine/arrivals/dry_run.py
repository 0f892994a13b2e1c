"""An asynchronous run without its computation, to count costs: the virtual clock fixes everything but the values."""

from fedbench.accounting.costs import CostModel
from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.engine.interfaces import EvaluationPhase, TaskExecutor
from fedbench.engine.messages import ClientReport, TaskOrder
from fedbench.training.scores import BatchScore


class DryRun(TaskExecutor):
    """Reports every task as successful without computing it; the clock alone decides when it arrives."""

    def __init__(self, plan: ArrivalPlan, costs: CostModel) -> None:
        self._plan = plan
        self._costs = costs
        self._in_flight: dict[int, TaskOrder] = {}

    def dispatch(self, order: TaskOrder, versions: tuple[int, ...], due: float) -> None:
        self._in_flight[order.number] = order

    def ready(self, timeout: float) -> int | None:
        return min(self._in_flight)

    def collect(self, number: int, round_index: int) -> ClientReport:
        order, plan = self._in_flight.pop(number), self._plan
        size = plan.sizes[order.client]
        epoch = plan.local.epoch(size)
        if plan.gradient:
            return ClientReport(order.client, "ok", epoch[order.visit % len(epoch)], 1, 0.0, 0.0)
        passes = self._costs.extra_passes(order.groups) if order.visit else 0
        return ClientReport(order.client, "ok", size, plan.local.steps_of(size), 0.0, 0.0, passes)

    def apply(self, number: int, lr: float, steps: int) -> None:
        pass

    def discard(self, number: int) -> None:
        pass

    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        return EvaluationPhase((BatchScore(1, 0.0, 0),), {}, 0)

    def end_round(self) -> tuple[float, int]:
        return 0.0, 0
