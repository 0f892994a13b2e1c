"""Which actor trains which client: pure functions, without Ray."""

from collections.abc import Mapping, Sequence

from fedbench.errors import ConfigError

Resources = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, and a cluster's own."""

OPTIONS = {"CPU": "runtime.cpus_per_client", "GPU": "runtime.gpus_per_client"}


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
    each: Resources,
    present: Resources,
    room: int,
) -> int:
    """How many client actors a run gets.

    Args:
        cohort: participants of a round.
        actors, clients_per_actor: as configured; both None: as many as fit, at most one per participant.
        each: what one actor takes.
        present: what the cluster has.
        room: actors that its nodes have room for, none of them on two nodes at once.

    Raises:
        ConfigError: more asked than there is, with the numbers and the way out.
    """
    asked = actors if actors is not None else (-(-cohort // clients_per_actor) if clients_per_actor else None)
    count = asked if asked is not None else min(cohort, max(1, room))
    for kind in sorted(each, key=lambda kind: (kind != "GPU", kind)):
        there = present.get(kind, 0.0)
        most = fitting_on_gpus(there, each[kind]) if kind == "GPU" else int(there / each[kind] + 1e-9)
        if count > most:
            plural = "s" if kind in OPTIONS else ""
            raise ConfigError(
                f"{count} actors x {each[kind]:g} {kind} = {count * each[kind]:g} {kind}{plural} asked, {there:g} "
                f"present: {_way_out(kind, there / count, most)}"
            )
    if count > room:
        what = " and ".join(f"{amount:g} {kind}" for kind, amount in each.items())
        raise ConfigError(
            f"{count} actors of {what} asked, the nodes have room for {room}, none of them on two nodes at once: set "
            f"runtime.actors<={room}, or less for each"
        )
    return count


def _way_out(kind: str, share: float, most: int) -> str:
    """What to set where the actors do not fit: each may take `share`, or there may be `most` of them."""
    option = OPTIONS.get(kind, f"runtime.resources.{kind}")
    if share:
        return f"set {option}<={share:.3g}" + (f" or runtime.actors<={most}" if most else "")
    return (f"set {option}=0" if kind in OPTIONS else f"leave {option} out") + ", or add nodes that have some"


def fitting_on_node(has: Resources, each: Resources) -> int:
    """Actors that fit on one node.

    >>> fitting_on_node({"CPU": 8, "GPU": 2}, each={"CPU": 1, "GPU": 0.4})
    4
    """
    return min(
        fitting_on_gpus(has.get(kind, 0.0), amount) if kind == "GPU" else int(has.get(kind, 0.0) / amount + 1e-9)
        for kind, amount in each.items()
    )


def fitting_on_gpus(gpus: float, gpus_each: float) -> int:
    """Actors that fit when none may straddle two GPUs.

    >>> fitting_on_gpus(2, 0.4)
    4
    """
    return int(gpus) * int(1 / gpus_each + 1e-9)
