"""The records that the loop of an asynchronous run keeps while a round is being filled."""

from dataclasses import dataclass, field

from fedbench.accounting.totals import Costs
from fedbench.engine.messages import ClientReport, TaskOrder
from fedbench.planning.schedules import ActiveGroups
from fedbench.planning.worlds import ClientTimes, World, without_training
from fedbench.records.schema import ArrivalRecord, ClientRecord


@dataclass(frozen=True)
class DispatchedTask:
    """A task that has been dispatched and has not arrived yet.

    Attributes:
        order: the task itself.
        index: number of updates applied before its dispatch.
        seconds: time of the clock at its dispatch.
        active: the layer groups that the schedule had active.
        downlink_bytes: bytes that its client downloads.
        uplink_bytes: bytes that its client will send.
        full: cost of a full update in its place.
        expected: whether its update will arrive; False where its client drops out.
        times: where its virtual time goes, and its energy; None where no profile is set.
    """

    order: TaskOrder
    index: int
    seconds: float
    active: ActiveGroups
    downlink_bytes: int
    uplink_bytes: int
    full: Costs
    expected: bool
    times: ClientTimes | None = None

    def times_at_end(self, status: str, world: World | None) -> ClientTimes | None:
        """The parts of the task's virtual time, as it ended; None where no profile is set.

        A task that failed, or whose client dropped out while it was on, counts with its download alone.

        Args:
            status: ok, rejected, failed or lost.
            world: the devices of the clients.
        """
        if self.times is None or world is None:
            return None
        if status == "failed" or (status == "lost" and self.times.done):
            return without_training(self.times, world.profiles[self.order.client], self.downlink_bytes)
        return self.times


@dataclass
class RoundInProgress:
    """The records of a round that is still being filled with arrivals.

    Attributes:
        round: round number, from 0.
        clients: one record for each report, in the order of arrival.
        arrivals: one record for each task that ended, those of lost clients included.
        reports: the reports that arrived.
        downlink_bytes: bytes downloaded for the tasks that ended.
        full: cost of the same tasks had each been a full update.
        trained: the layer groups of each update that was applied.
        waited: seconds that the loop waited for results.
        lost_in_a_row: tasks of clients that went off or dropped out, since the last report.
        joules: energy of each task that ended; None for one whose profile does not know it.
    """

    round: int
    clients: list[ClientRecord] = field(default_factory=list)
    arrivals: list[ArrivalRecord] = field(default_factory=list)
    reports: list[ClientReport] = field(default_factory=list)
    downlink_bytes: int = 0
    full: Costs = field(default_factory=Costs)
    trained: list[tuple[int, ...]] = field(default_factory=list)
    waited: float = 0.0
    lost_in_a_row: int = 0
    joules: list[float | None] = field(default_factory=list)

    @property
    def accepted(self) -> list[ArrivalRecord]:
        """Records of the updates that were applied."""
        return [arrival for arrival in self.arrivals if arrival.status == "ok"]

    @property
    def group(self) -> int:
        """The layer group that all applied updates trained; -1 where they trained several."""
        groups = {arrival.group for arrival in self.accepted}
        return groups.pop() if len(groups) == 1 else -1
