"""The virtual world of a run, from its configuration; and what of a configuration no such world goes with."""

from collections.abc import Iterator

from fedbench.config.experiment import ExperimentConfig
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
            f"{given} with algorithm.name={config.method.name}: the rows are in one place, which is no client's device; "
            "leave delays.profile out"
        )
    if participation.round_deadline is not None:
        raise ConfigError(
            f"participation.round_deadline={participation.round_deadline:g} with {given}: real time would decide who is "
            "dropped on the virtual clock; set delays.deadline, in virtual seconds"
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


def unknown_energies(world: World | None) -> Iterator[str]:
    """One line where no joules are recorded, since a profile does not know an energy."""
    for profile in dict.fromkeys(world.profiles if world is not None else ()):
        if missing := profile.missing_energies:
            yield (
                f"delays.profile: {profile.name} has no {', '.join(missing)}, so that no joules of rounds with such "
                "clients are recorded"
            )
            return
