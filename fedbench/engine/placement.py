"""Which actor trains which client: pure functions, without Ray."""

from collections.abc import Mapping, Sequence

from fedbench.errors import ConfigError


def assign(
    cohort: Sequence[int], sizes: Sequence[int], actors: int, home: Mapping[int, int]
) -> tuple[tuple[int, ...], ...]:
    """Balanced queues: clients by falling size, each to the actor with the least work so far.

    Between equally loaded actors a client goes home, so that with equal sizes and everyone taking part nobody ever
    moves; with one actor per client each has its own.

    Args:
        cohort: participants, ascending.
        sizes: samples of each client of the population.
        actors: number of actors.
        home: the actor that trained a client last; client c starts at actor c mod `actors`.

    >>> assign([0, 1, 2], [10, 10, 20], actors=2, home={})
    ((2,), (0, 1))
    """
    queues: list[list[int]] = [[] for _ in range(actors)]
    load = [0] * actors
    for client in sorted(cohort, key=lambda client: (-sizes[client], client)):
        own = home.get(client, client % actors)
        least = min(load)
        chosen = own if load[own] == least else load.index(least)
        queues[chosen].append(client)
        load[chosen] += sizes[client]
    return tuple(tuple(queue) for queue in queues)


def count_actors(
    *,
    cohort: int,
    actors: int | None,
    clients_per_actor: int | None,
    cpus_each: float,
    gpus_each: float,
    cpus: float,
    gpus: float,
    room: int,
) -> int:
    """How many client actors a run gets.

    Args:
        cohort: participants of a round.
        actors, clients_per_actor: as configured; both None: as many as fit, at most one per participant.
        cpus_each, gpus_each: what one actor takes.
        cpus, gpus: what the cluster has.
        room: actors that its nodes have room for, none of them on two nodes at once.

    Raises:
        ConfigError: more asked than there is, with the numbers and the way out.
    """
    asked = actors if actors is not None else (-(-cohort // clients_per_actor) if clients_per_actor else None)
    count = asked if asked is not None else min(cohort, max(1, room))
    if gpus_each and count > fitting_on_gpus(gpus, gpus_each):
        raise ConfigError(
            f"{count} actors x {gpus_each:g} GPU = {count * gpus_each:g} GPUs asked, {gpus:g} present: set "
            f"runtime.gpus_per_client<={gpus / count:.3g} or runtime.actors<={fitting_on_gpus(gpus, gpus_each)}"
        )
    if count * cpus_each > cpus + 1e-9:
        raise ConfigError(
            f"{count} actors x {cpus_each:g} CPU = {count * cpus_each:g} CPUs asked, {cpus:g} present: set "
            f"runtime.cpus_per_client<={cpus / count:.3g} or runtime.actors<={int(cpus / cpus_each)}"
        )
    if count > room:
        what = f"{cpus_each:g} CPU" + (f" and {gpus_each:g} GPU" if gpus_each else "")
        raise ConfigError(
            f"{count} actors of {what} asked, the nodes have room for {room}, none of them on two nodes at once: set "
            f"runtime.actors<={room}, or less for each"
        )
    return count


def fitting_on_node(cpus: float, gpus: float, cpus_each: float, gpus_each: float) -> int:
    """Actors that fit on one node.

    >>> fitting_on_node(cpus=8, gpus=2, cpus_each=1, gpus_each=0.4)
    4
    """
    fitting = int(cpus / cpus_each + 1e-9)
    return min(fitting, fitting_on_gpus(gpus, gpus_each)) if gpus_each else fitting


def fitting_on_gpus(gpus: float, gpus_each: float) -> int:
    """Actors that fit when none may straddle two GPUs.

    >>> fitting_on_gpus(2, 0.4)
    4
    """
    return int(gpus) * int(1 / gpus_each + 1e-9)
