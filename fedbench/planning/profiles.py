"""The `delays.profile` section: on what device and behind what network connection each client is.

A profile is a device and a link, written DEVICE+LINK, such as `raspberry-pi-5+lte`. The figures of those that a
configuration uses stand in the configuration itself, where `fedbench.config.device_table` puts them, so that a recorded
configuration means the same whatever becomes of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from fedbench.components.base import Section
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError
from fedbench.randomness import generator

JOINT = "+"
"""What stands between the device and the link in the name of a profile."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Device(Section):
    """What a client computes on.

    Attributes:
        flops_per_second: Floating-point operations per second that training reaches.
        memory_bytes: Bytes of memory that training may use. null: not known.
        joules_per_flop: Energy of a floating-point operation, in joules. null: not known.
        source: Where the figures come from.
    """

    flops_per_second: Positive
    memory_bytes: int | None = Field(default=None, ge=1)
    joules_per_flop: AtLeastZero | None = None
    source: str = ""


class Link(Section):
    """The connection of a client with the server.

    Attributes:
        down_bytes_per_second: Bandwidth from the server to the client.
        up_bytes_per_second: Bandwidth from the client to the server.
        latency_seconds: Seconds that each download and each upload takes beside its bytes.
        joules_per_byte_down: Energy that the client spends on a byte that it receives, in joules. null: not known.
        joules_per_byte_up: Energy that the client spends on a byte that it sends, in joules. null: not known.
        source: Where the figures come from.
    """

    down_bytes_per_second: Positive
    up_bytes_per_second: Positive
    latency_seconds: AtLeastZero = 0.0
    joules_per_byte_down: AtLeastZero | None = None
    joules_per_byte_up: AtLeastZero | None = None
    source: str = ""


@dataclass(frozen=True)
class Profile:
    """The device and the link of a client.

    Attributes:
        name: DEVICE+LINK.
        device: what it computes on.
        link: how it is connected.
    """

    name: str
    device: Device
    link: Link

    @property
    def missing_energies(self) -> tuple[str, ...]:
        """The energies that are not known, as keys of the device and the link; without them there are no joules."""
        energies = {
            "joules_per_flop": self.device.joules_per_flop,
            "joules_per_byte_down": self.link.joules_per_byte_down,
            "joules_per_byte_up": self.link.joules_per_byte_up,
        }
        return tuple(name for name, value in energies.items() if value is None)

    def joules(self, flops: float, down_bytes: float, up_bytes: float) -> float | None:
        """The energy of a client's work, in joules; None where one of the energies is not known.

        E = F e_F + D e_D + U e_U, of F FLOPs, D bytes received and U bytes sent.
        """
        per_flop, link = self.device.joules_per_flop, self.link
        if per_flop is None or link.joules_per_byte_down is None or link.joules_per_byte_up is None:
            return None
        return flops * per_flop + down_bytes * link.joules_per_byte_down + up_bytes * link.joules_per_byte_up


class ProfileSection(Section):
    """On what device and behind what connection each client is: profiles by the seed, or one for each client.

    Attributes:
        profiles: Profiles, DEVICE+LINK each; every client is given one by the seed, for the whole run. Set profiles or
            clients.
        shares: Share of the clients that each of the profiles is for, in proportion to their sum. null: all the same.
        clients: The profile of each client, in their order; set profiles or clients.
        file: YAML file with further `devices` and `links`. What it holds is put in their place when the configuration
            is read.
        devices: Devices by name, beside the shipped ones.
        links: Links by name, beside the shipped ones.
    """

    profiles: tuple[str, ...] | None = None
    shares: tuple[AtLeastZero, ...] | None = None
    clients: tuple[str, ...] | None = None
    file: Path | None = None
    devices: dict[str, Device] = Field(default_factory=dict)
    links: dict[str, Link] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        profiles, shares, clients = self.profiles, self.shares, self.clients
        if bool(profiles) == bool(clients):
            raise ValueError(f"profiles={_shown(profiles)} and clients={_shown(clients)}: set one of the two")
        if shares is not None:
            if profiles is None or len(profiles) != len(shares):
                raise ValueError(f"shares={_shown(shares)}: one is needed for each of profiles={_shown(profiles)}")
            if not sum(shares):
                raise ValueError(f"shares={_shown(shares)}: at least one must be above 0")
        if profiles is not None and len(set(profiles)) < len(profiles):
            raise ValueError(f"profiles={_shown(profiles)}: each may stand there once; set shares")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The profiles that are named, each once."""
        return tuple(dict.fromkeys(self.profiles or self.clients or ()))

    def profile(self, name: str) -> Profile:
        """The profile of a name, DEVICE+LINK.

        Raises:
            ConfigError: its device or its link is not known.
        """
        device, link = split_name(name)
        for kind, part, known in (("device", device, self.devices), ("link", link, self.links)):
            if part not in known:
                raise ConfigError(f"delays.profile: {name}: no such {kind}{did_you_mean(part, list(known))}")
        return Profile(name, self.devices[device], self.links[link])

    def of_clients(self, clients: int, seed: int) -> tuple[Profile, ...]:
        """The profile of each of `clients` clients.

        Raises:
            ConfigError: a device or a link is not known, or `clients` has profiles for another number of clients.
        """
        known = {name: self.profile(name) for name in self.names}
        if self.profiles is not None:
            dealt = dealt_out(self.profiles, self.shares or (1.0,) * len(self.profiles), clients)
            order = generator(seed, "device profiles").permutation(clients)
            return tuple(known[dealt[int(place)]] for place in order)
        assert self.clients is not None
        if len(self.clients) != clients:
            raise ConfigError(
                f"delays.profile.clients: has {len(self.clients)} profiles for data.clients={clients}; give one for "
                "each client"
            )
        return tuple(known[name] for name in self.clients)


def dealt_out(names: Sequence[str], shares: Sequence[float], clients: int) -> tuple[str, ...]:
    """Names for `clients` clients in proportion to shares, those with the largest remainders rounded up.

    >>> dealt_out(("phone", "board"), (0.7, 0.3), 5)
    ('phone', 'phone', 'phone', 'phone', 'board')
    """
    quotas = [clients * share / sum(shares) for share in shares]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(names)), key=lambda place: (counts[place] - quotas[place], place))
    for place in by_remainder[: clients - sum(counts)]:
        counts[place] += 1
    return tuple(name for name, count in zip(names, counts, strict=True) for _ in range(count))


def split_name(name: str) -> tuple[str, str]:
    """The device and the link of a profile's name.

    Raises:
        ConfigError: the name is not of the form DEVICE+LINK.

    >>> split_name("raspberry-pi-5+lte")
    ('raspberry-pi-5', 'lte')
    """
    device, joint, link = name.partition(JOINT)
    if not (device and joint and link) or JOINT in link:
        raise ConfigError(f"delays.profile: {name}: must be DEVICE+LINK, such as raspberry-pi-5+lte")
    return device, link


def _shown(values: Sequence[object] | None) -> str:
    return "null" if values is None else f"[{', '.join(map(str, values))}]"
