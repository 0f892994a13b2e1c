"""The number of actors and the assignment of clients to them: pure functions, without Ray."""

from collections.abc import Mapping, Sequence

from fedbench.config.runtime import SMALLEST_AMOUNT, RuntimeSection
from fedbench.errors import ConfigError

Resources = Mapping[str, float]
"""{resource: amount}, by Ray's names: CPU, GPU, and custom resources of a cluster."""

OPTIONS = {"CPU": "runtime.cpus_per_client", "GPU": "runtime.gpus_per_client"}
"""The configuration key that says how much of a resource one actor takes."""


def assign(
    cohort: Sequence[int], sizes: Sequence[int], actors: int, home: Mapping[int, int]
) -> tuple[tuple[int, ...], ...]:
    """Deal a round's participants to the actors so that the actors have equally many samples.

    Clients are taken by falling size; each goes to the actor with the fewest samples so far. Of equally loaded actors
    a client prefers its home, the actor that trained it last, so that its state need not move. With equal sizes and
    full participation no client ever moves.

    Args:
        cohort: participants, ascending.
        sizes: training samples of each client of the population.
        actors: number of actors.
        home: {client: the actor that trained it last}; client c starts at actor c mod `actors`.

    Returns:
        For each actor, the clients that it trains, in that order.

    >>> assign([0, 1, 2], [10, 10, 20], actors=2, home={})
    ((2,), (0, 1))
    """
    queues: list[list[int]] = [[] for _ in range(actors)]
    load = [0] * actors
    for client in sorted(cohort, key=lambda client: (-sizes[client], client)):
        preferred = home.get(client, client % actors)
        least = min(load)
        chosen = preferred if load[preferred] == least else load.index(least)
        queues[chosen].append(client)
        load[chosen] += sizes[client]
    return tuple(tuple(queue) for queue in queues)


def deal_tests(sizes: Sequence[int], actors: int, bound: Mapping[int, int]) -> tuple[tuple[int, ...], ...]:
    """Deal all clients that have held-out rows to the actors that score them, equally many rows to each if possible.

    Args:
        sizes: held-out rows of each client of the population.
        actors: number of actors.
        bound: {client: the only actor that can score it}.

    Returns:
        For each actor, the clients that it scores, ascending.

    >>> deal_tests([2, 2, 4, 0], actors=2, bound={0: 1})
    ((2,), (0, 1))
    """
    load, chosen = [0] * actors, dict(bound)
    for client, actor in bound.items():
        load[actor] += sizes[client]
    for client in sorted(range(len(sizes)), key=lambda client: (-sizes[client], client)):
        if client not in bound:
            chosen[client] = load.index(min(load))
            load[chosen[client]] += sizes[client]
    return tuple(
        tuple(client for client, size in enumerate(sizes) if size and chosen[client] == actor)
        for actor in range(actors)
    )


MOST_ACTORS_PER_GPU = 4
"""Client actors that share a GPU at most, where the configuration does not ask for a number of actors."""


def gpu_share(runtime: RuntimeSection, gpus: int, cohort: int) -> float:
    """The fraction of a GPU that each client actor takes: as configured, or the same for all and as large as fits.

    Args:
        runtime: the device, the share and the number of actors that the configuration asks for.
        gpus: GPUs of the whole cluster.
        cohort: participants of a round.

    Raises:
        ConfigError: actors have to have GPUs, and there are none.

    >>> gpu_share(RuntimeSection(actors=5), gpus=2, cohort=40)
    0.3333
    """
    if runtime.gpus_per_client is not None:
        return runtime.gpus_per_client
    if runtime.device == "cpu":
        return 0.0
    if not gpus:
        if runtime.device == "cuda":
            raise ConfigError(
                "runtime.device=cuda: Ray knows of no GPU on any node; set runtime.device=cpu, or add one"
            )
        return 0.0
    asked = runtime.actors or (-(-cohort // runtime.clients_per_actor) if runtime.clients_per_actor else None)
    most = 1 if runtime.slots > 1 else MOST_ACTORS_PER_GPU  # slots keep a GPU busy from a single process
    each = -(-(asked or min(cohort, most * gpus)) // gpus)
    return max(SMALLEST_AMOUNT, int(10_000 / each) / 10_000)  # as finely as Ray counts


def count_actors(
    *,
    cohort: int,
    actors: int | None,
    clients_per_actor: int | None,
    each: Resources,
    present: Resources,
    room: int,
) -> int:
    """The number of client actors of a run.

    Args:
        cohort: participants of a round.
        actors: `runtime.actors`; None: not set.
        clients_per_actor: `runtime.clients_per_actor`; None: not set. Where neither is set, there are as many actors
            as fit, at most one for each participant.
        each: resources that one actor takes.
        present: resources of the whole cluster.
        room: number of actors that fit on the nodes, each on one node.

    Raises:
        ConfigError: the configuration asks for more than the cluster has; the message has the numbers and a way out.
    """
    configured = actors if actors is not None else (-(-cohort // clients_per_actor) if clients_per_actor else None)
    count = configured if configured is not None else min(cohort, max(1, room))
    for kind in sorted(each, key=lambda kind: (kind != "GPU", kind)):
        available = present.get(kind, 0.0)
        most = fitting_on_gpus(available, each[kind]) if kind == "GPU" else int(available / each[kind] + 1e-9)
        if count > most:
            plural = "s" if kind in OPTIONS else ""
            raise ConfigError(
                f"{count} actors x {each[kind]:g} {kind} = {count * each[kind]:g} {kind}{plural} asked, {available:g} "
                f"present: {_way_out(kind, available / count, most)}"
            )
    if count > room:
        needs = " and ".join(f"{amount:g} {kind}" for kind, amount in each.items())
        raise ConfigError(
            f"{count} actors of {needs} asked, the nodes have room for {room}, none of them on two nodes at once: set "
            f"runtime.actors<={room}, or less for each"
        )
    return count


def _way_out(kind: str, share: float, most: int) -> str:
    """The setting to suggest where the actors do not fit.

    Args:
        kind: the resource that there is too little of.
        share: amount of it that each actor may take.
        most: number of actors that fit as they are.
    """
    option = OPTIONS.get(kind, f"runtime.resources.{kind}")
    if share:
        return f"set {option}<={share:.3g}" + (f" or runtime.actors<={most}" if most else "")
    return (f"set {option}=0" if kind in OPTIONS else f"leave {option} out") + ", or add nodes that have some"


def fitting_on_node(has: Resources, each: Resources) -> int:
    """Number of actors that fit on one node.

    Args:
        has: resources of the node.
        each: resources that one actor takes.

    >>> fitting_on_node({"CPU": 8, "GPU": 2}, each={"CPU": 1, "GPU": 0.4})
    4
    """
    return min(
        fitting_on_gpus(has.get(kind, 0.0), amount) if kind == "GPU" else int(has.get(kind, 0.0) / amount + 1e-9)
        for kind, amount in each.items()
    )


def fitting_on_gpus(gpus: float, gpus_each: float) -> int:
    """Number of actors that fit on `gpus` GPUs when each takes `gpus_each` of a single one.

    >>> fitting_on_gpus(2, 0.4)
    4
    """
    return int(gpus) * int(1 / gpus_each + 1e-9)
