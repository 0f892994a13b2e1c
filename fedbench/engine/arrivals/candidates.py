"""Who may be given the next task of an asynchronous run: clients without one that are on."""

from collections.abc import Sequence

from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.errors import RunError
from fedbench.planning.availability import MOST_WAITING_SECONDS
from fedbench.randomness import generator

NEVER = float("inf")
"""The time of a client that does not come."""


class Candidates:
    """Draws the clients of tasks uniformly; where there are as many clients as slots, each slot has its own client."""

    def __init__(self, plan: ArrivalPlan) -> None:
        """Args:
        plan: has the population, the slots, the seed, and who is on when.
        """
        self._seed = plan.seed
        self._presence = None if plan.world is None else plan.world.presence
        self.own_client = len(plan.sizes) == plan.workers

    def draw(self, slot: int, idle: Sequence[int], number: int, now: float) -> int | None:
        """The client of a task; None where all that the slot could go to are off.

        Args:
            slot: the free slot.
            idle: the clients without a task, ascending.
            number: number of the task.
            now: seconds of the clock.
        """
        clients = [slot] if self.own_client else idle
        if (presence := self._presence) is not None:
            clients = [client for client in clients if presence.on_until(client, now) > now]
            if not clients:
                return None
        if self.own_client:
            return slot
        return clients[int(generator(self._seed, "dispatch", number).integers(len(clients)))]

    def next_coming(
        self, free_slots: Sequence[int], idle: Sequence[int], now: float, round_index: int, *, in_flight: bool
    ) -> float:
        """The time at which the next client comes that a free slot can go to; `NEVER` where none is waited for.

        Args:
            free_slots: the slots without a task.
            idle: the clients without a task.
            now: seconds of the clock.
            round_index: the round, from 0, for the message.
            in_flight: whether there are tasks whose end is waited for, too.

        Raises:
            RunError: there is nothing else to wait for, and no client comes within a year.
        """
        if self._presence is None or not free_slots:
            return NEVER
        clients = free_slots if self.own_client else idle
        comes = min((self._presence.on_from(client, now) for client in clients), default=NEVER)
        if not in_flight and comes - now > MOST_WAITING_SECONDS:
            raise RunError(
                f"round {round_index + 1}: no client comes on within a year from {now:,.0f} s of the virtual clock on; "
                "change delays.availability"
            )
        return comes
