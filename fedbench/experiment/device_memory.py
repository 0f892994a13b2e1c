"""What the memory of clients' devices lets them train: a refusal where it is too little, or limits that keep to it.

The memory of a training step is that of `fedbench.accounting.memory`, and grows with the layer groups: whoever can
train a set of them can train a part of it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial

from torch import nn

from fedbench.accounting.memory import peak_training_bytes
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.contracts import cohorts, objective_of
from fedbench.models.base import LayerGroup, Task
from fedbench.models.frozen_base import FrozenBase
from fedbench.models.groups import derive_layer_groups
from fedbench.models.lowered import LOWERED
from fedbench.models.outline import outline_module
from fedbench.planning.capacities import Clients
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.schedules import Feedback
from fedbench.planning.worlds import World
from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout


class TrainingMemory:
    """Estimates what a client's training step needs: the step itself, and what the method has the client keep."""

    def __init__(self, config: ExperimentConfig, layout: ParameterLayout, task: Task, base: FrozenBase | None) -> None:
        """Args:
        config: the experiment.
        layout: of the model's parameters.
        task: the learning task, which has the shape of the data.
        base: what of the network is never trained; None: all of it is.
        """
        objective = objective_of(config.method)
        vectors = len(objective.channels) + len(objective.keeps) + objective.working_vectors + objective.corrects
        vectors += 2 * config.chosen_exchange.keeps_layers  # what a client keeps, and what it starts from
        self._kept = BYTES_PER_VALUE * layout.size * vectors
        self._config, self._task, self._base = config, task, base
        self._of_steps: dict[tuple[tuple[int, ...], int], int] = {}

    @cached_property
    def _network(self) -> tuple[nn.Module, list[LayerGroup]]:
        """The network and its layer groups; not the one that trains, whose parameters share their storage."""
        module = outline_module(self._config.model, self._task, 0, self._base)
        return module, derive_layer_groups(module, self._task)

    def minibatch(self, rows: int) -> int:
        """Rows of the largest minibatch of a client that has `rows` rows."""
        return min(self._config.local.batch_size, rows)

    def peak_bytes(self, active: tuple[int, ...], samples: int) -> int:
        """Estimated peak bytes of a step that trains the layer groups `active` on a minibatch of `samples` rows."""
        if (active, samples) not in self._of_steps:
            module, groups = self._network
            local = self._config.local
            self._of_steps[active, samples] = peak_training_bytes(
                module,
                groups,
                self._task,
                active,
                samples,
                local.optimizer.slots,
                checkpointed=local.checkpoint_activations,
                lowered=local.precision == LOWERED,
            )
        return self._of_steps[active, samples] + self._kept

    def fits(self, has: int, samples: int, active: tuple[int, ...]) -> bool:
        """Whether `has` bytes are enough for that."""
        return self.peak_bytes(active, samples) <= has


def client_limits(
    config: ExperimentConfig,
    world: World | None,
    task: Task,
    sizes: tuple[int, ...],
    layout: ParameterLayout,
    rounds: int,
    base: FrozenBase | None = None,
) -> Clients:
    """What the clients can train: by `participation.capacities`, or by the memory of their devices where it says so.

    Args:
        config: the experiment.
        world: devices of the clients; None where no profile is set.
        task: the learning task, which has the shape of the data.
        sizes: rows of each client.
        layout: of the parameters.
        rounds: rounds of the run.
        base: what of the network is never trained; None: all of it is.

    Raises:
        ConfigError: a device has too little memory for what its client would train.
    """
    if world is None:
        return config.participation.limits(config.data.clients, config.seed, layout)
    memory = TrainingMemory(config, layout, task, base)
    if config.participation.by_memory:
        return memory_limits(world, memory, sizes, layout)
    limits = config.participation.limits(config.data.clients, config.seed, layout)
    check_device_memory(config, world, memory, sizes, layout, rounds, limits)
    return limits


def check_device_memory(
    config: ExperimentConfig,
    world: World,
    memory: TrainingMemory,
    sizes: tuple[int, ...],
    layout: ParameterLayout,
    rounds: int,
    limits: Clients,
) -> None:
    """Check that every client's device can hold what the client trains.

    Where the schedule has all clients train the same, every client must be able to train what any round trains.

    Args:
        config: the experiment.
        world: devices of the clients.
        memory: what a step needs.
        sizes: rows of each client.
        layout: of the parameters.
        rounds: rounds of the run.
        limits: what the clients can train by their capacities.

    Raises:
        ConfigError: names the client, its profile, what it needs and what it has.
    """
    known = [client for client, profile in enumerate(world.profiles) if profile.device.memory_bytes is not None]
    if not known:
        return

    def check(client: int, groups: tuple[int, ...]) -> None:
        profile = world.profiles[client]
        has, needs = profile.device.memory_bytes, memory.peak_bytes(groups, memory.minibatch(sizes[client]))
        if has is None or needs <= has:
            return
        whole = groups == layout.all_groups
        what = "the whole network" if whole else " + ".join(layout.group_names[group] for group in groups)
        raise ConfigError(
            f"delays.profile: client {client} ({profile.name}) needs {_in_bytes(needs)} to train {what} and has "
            f"{_in_bytes(has)}; set participation.capacities=memory with schedule=per-client, lower "
            "local.batch_size, or give it another device"
        )

    # Of the clients with one profile the one with the largest minibatch stands for all.
    largest: dict[str, int] = {}
    for client in known:
        name = world.profiles[client].name
        if name not in largest or sizes[client] > sizes[largest[name]]:
            largest[name] = client
    if all(_fits(world, memory, client, layout.all_groups, sizes) for client in largest.values()):
        return
    schedule, none, seen = config.schedule, Feedback.none(layout), set[tuple[str, tuple[int, ...]]]()
    cohort = cohorts(config, sizes)
    for index in range(rounds):
        clients = tuple(largest.values()) if schedule.same_for_all else tuple(cohort(index))
        _, trained = checked_groups(schedule, index, layout.groups, config.seed, none, clients, clients=limits)
        for client, groups in zip(clients, trained, strict=True):
            representative = largest.get(world.profiles[client].name) if schedule.same_for_all else client
            key = (f"{world.profiles[client].name} {memory.minibatch(sizes[client])}", groups)
            if representative is not None and key not in seen:
                seen.add(key)
                check(client, groups)


def memory_limits(world: World, memory: TrainingMemory, sizes: Sequence[int], layout: ParameterLayout) -> Clients:
    """What the clients can train, by the memory of their devices: as many consecutive layer groups as fit.

    A minibatch smaller than the largest counts as one of the next power of two rows, so that the memory is estimated
    for few sizes.

    Args:
        world: devices of the clients.
        memory: what a step needs.
        sizes: rows of each client.
        layout: of the parameters.

    Raises:
        ConfigError: the memory of a device is not known, or too little for one layer group.
    """
    windows_of: dict[tuple[int, int], tuple[tuple[int, ...], ...]] = {}
    of_clients = []
    for client, profile in enumerate(world.profiles):
        has = profile.device.memory_bytes
        if has is None:
            raise ConfigError(
                f"participation.capacities=memory: the device of client {client} ({profile.name}) has no memory_bytes; "
                "state it in delays.profile.devices, or choose another"
            )
        samples = memory.minibatch(1 << (sizes[client] - 1).bit_length())
        if (has, samples) not in windows_of:
            windows_of[has, samples] = fitting_windows(layout.groups, partial(memory.fits, has, samples))
        windows = windows_of[has, samples]
        if not any(windows):
            needs = min(memory.peak_bytes((group,), samples) for group in layout.all_groups)
            raise ConfigError(
                f"participation.capacities=memory: client {client} ({profile.name}) could train no layer group: the "
                f"least needs {_in_bytes(needs)}, it has {_in_bytes(has)}; give it another device"
            )
        of_clients.append(windows)
    return Clients(windows=tuple(of_clients))


def fitting_windows(groups: int, fits: Callable[[tuple[int, ...]], bool]) -> tuple[tuple[int, ...], ...]:
    """For each layer group, the most consecutive groups from it on that fit; after the last comes the first again.

    Args:
        groups: M, the number of layer groups.
        fits: whether ascending layer groups fit; a part of what fits fits, too.

    Returns:
        For each first layer group, ascending layer groups; () where it does not fit itself.

    >>> fitting_windows(4, lambda chosen: sum((1, 4, 2, 1)[group] for group in chosen) <= 5)
    ((0, 1), (1,), (0, 2, 3), (0, 3))
    """
    windows: list[tuple[int, ...]] = []
    length = 0
    for first in range(groups):
        # What is left of the window before fits without being looked at.
        length = max(0, length - 1)
        while length < groups and fits(_window(first, length + 1, groups)):
            length += 1
        windows.append(_window(first, length, groups))
    return tuple(windows)


def _window(first: int, length: int, groups: int) -> tuple[int, ...]:
    return tuple(sorted((first + step) % groups for step in range(length)))


def _fits(world: World, memory: TrainingMemory, client: int, groups: tuple[int, ...], sizes: Sequence[int]) -> bool:
    has = world.profiles[client].device.memory_bytes
    return has is None or memory.peak_bytes(groups, memory.minibatch(sizes[client])) <= has


def _in_bytes(count: int) -> str:
    """A number of bytes in MB, and a small one as it is.

    >>> _in_bytes(2_500_000), _in_bytes(1200)
    ('2.5 MB', '1,200 bytes')
    """
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"
