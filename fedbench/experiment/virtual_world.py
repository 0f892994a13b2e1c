"""The virtual world of a run, from its configuration; and what of a configuration no such world goes with."""

from collections.abc import Iterator

from fedbench.accounting.costs import CostModel
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.errors import ConfigError
from fedbench.planning.worlds import World


def make_world(config: ExperimentConfig) -> World | None:
    """The devices, links and times of the clients; None where no profile is set.

    Raises:
        ConfigError: names the combination and the reason.
    """
    delays, participation = config.delays, config.participation
    if delays.profile is None:
        return None
    given = f"delays.{delays.shown('profile')}"
    if config.method.pools_rows:
        raise ConfigError(
            f"{given} with algorithm.name={config.method.name}: the rows are in one place, which is no client's device;"
            " leave delays.profile out"
        )
    if participation.round_deadline is not None:
        raise ConfigError(
            f"participation.round_deadline={participation.round_deadline:g} with {given}: real time would decide who "
            "is dropped on the virtual clock; set delays.deadline, in virtual seconds"
        )
    if config.runtime.max_failed_clients and delays.replay is None and delays.uplink_groups is not None:
        raise ConfigError(
            f"runtime.max_failed_clients={config.runtime.max_failed_clients} with delays.uplink_groups: what a failed "
            "client would have sent shares the uplink nevertheless; set it to 0"
        )
    if delays.availability is not None and not type(participation.sampler).__module__.startswith("fedbench."):
        raise ConfigError(
            f"delays.{delays.shown('availability')} with participation.sampler={participation.sampler.name}: a sampler "
            "of one's own draws from all clients, also from those that are off; choose uniform, weighted or oort"
        )
    return delays.world(config.seed, config.data.clients)


def mean_task_seconds(world: World, costs: CostModel, plan: ArrivalPlan) -> float:
    """Mean seconds of a full update's task, each client's on its device, as if everyone were always on."""
    groups = costs.layout.all_groups
    nbytes = costs.uplink_bytes(groups)
    total = 0.0
    for client, profile in enumerate(world.profiles):
        first = plan.local.epoch(plan.sizes[client])[0]
        flops = costs.minibatch_flops(groups, first) if plan.gradient else costs.client_flops(groups, client)
        link = profile.link
        total += flops / profile.device.flops_per_second + 2 * link.latency_seconds
        total += nbytes / link.down_bytes_per_second + nbytes / link.up_bytes_per_second
    return total / len(world.profiles)


def unknown_energies(world: World | None) -> Iterator[str]:
    """One line where no joules are recorded, since a profile does not know an energy."""
    for profile in dict.fromkeys(world.profiles if world is not None else ()):
        if missing := profile.missing_energies:
            yield (
                f"delays.profile: {profile.name} has no {', '.join(missing)}, so that no joules of rounds with such "
                "clients are recorded"
            )
            return
