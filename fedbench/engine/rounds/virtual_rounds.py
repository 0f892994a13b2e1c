"""The virtual clock of a run in rounds: when each round begins, who is dropped in it, and how long it lasts."""

from collections.abc import Sequence
from dataclasses import replace

from fedbench.accounting.costs import CostModel
from fedbench.checkpoints.state import Tree
from fedbench.engine.messages import ClientReport, RoundPlan
from fedbench.planning.deadlines import Limit
from fedbench.planning.worlds import Opening, RoundTimes, Work, World, without_training


class VirtualRounds:
    """Keeps the virtual clock of a synchronous run.

    Who is dropped is known before the round is trained: bytes and FLOPs of its participants follow from its plan.

    Attributes:
        world: devices, links and times of the clients.
    """

    def __init__(self, world: World, costs: CostModel, size: int) -> None:
        """Args:
        world: devices, links and times of the clients.
        costs: counts FLOPs.
        size: participants of a round.
        """
        self.world = world
        self._costs = costs
        self._size = size
        self._now = 0.0
        self._trained: set[int] = set()

    def open(self, round_index: int) -> Opening:
        """When round `round_index`, from 0, can begin, and with whom.

        Raises:
            RunError: there are never enough clients at once.
        """
        return self.world.open(self._now, self._size, round_index)

    def times(self, plan: RoundPlan, opening: Opening) -> RoundTimes:
        """The times of a round that has been planned."""
        costs = self._costs
        works = [
            Work(
                costs.client_flops(
                    groups,
                    client,
                    costs.extra_passes(groups) if client in self._trained else 0,
                    costs.reports_norms,
                ),
                down_bytes,
                up_bytes,
            )
            for client, groups, down_bytes, up_bytes in zip(
                plan.cohort, plan.groups, plan.downlink_bytes, plan.uplink_bytes, strict=True
            )
        ]
        return self.world.round(opening.start, plan.cohort, works)

    def limit(self, times: RoundTimes) -> Limit:
        """The limit by which the dropped participants are left out of the training."""
        causes = []
        if times.went_off:
            causes.append("went off before they were done (delays.availability)")
        if times.too_slow:
            causes.append(f"were not done within delays.deadline={self.world.deadline:g} virtual seconds")
        return Limit(None, times.dropped, " or ".join(causes))

    def close(self, times: RoundTimes, plan: RoundPlan, reports: Sequence[ClientReport]) -> RoundTimes:
        """End a round; a client that has failed counts with its download alone.

        Returns:
            The round's times, as they are recorded.
        """
        self._trained |= {report.client for report in reports if report.status == "ok"}
        failed = {report.client for report in reports if report.status == "failed"}
        if failed:
            down_bytes = dict(zip(plan.cohort, plan.downlink_bytes, strict=True))
            clients = {
                client: without_training(of_client, self.world.profiles[client], down_bytes[client])
                if client in failed
                else of_client
                for client, of_client in times.clients.items()
            }
            done = [of_client.end for of_client in clients.values() if of_client.done]
            times = replace(times, clients=clients, end=times.end if times.too_slow or not done else max(done))
        self._now = times.end
        return times

    def state(self) -> Tree:
        """All that is kept between two rounds, for a checkpoint."""
        return {"now": self._now, "trained": sorted(self._trained)}

    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned."""
        self._now, self._trained = state["now"], set(state["trained"])
