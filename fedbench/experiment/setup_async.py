"""What an asynchronous run is, from its configuration; and what of a configuration it cannot be."""

from collections.abc import Iterator

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.components.catalogue import DEFAULTS
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.errors import ConfigError
from fedbench.planning.delays import IN_ROUNDS_TOO
from fedbench.planning.worlds import World
from fedbench.training.minibatches import LocalLength
from fedbench.training.optimizers import SGD


def arrival_plan(
    config: ExperimentConfig, sizes: tuple[int, ...], local: LocalLength, rounds: int, world: World | None = None
) -> ArrivalPlan | None:
    """The run that is asked for; None where the method works in rounds.

    Args:
        sizes: samples of each client of the population.
        local: how many minibatches local training has.
        rounds: rows of the records.
        world: devices, links and times of the clients; None where no profile is set.

    Raises:
        ConfigError: names the combination and the reason.
    """
    method, delays = config.asynchronous, config.delays
    if method is None:
        for key in delays.changed():
            if key in IN_ROUNDS_TOO:
                continue
            raise ConfigError(
                f"delays.{delays.shown(key)}: has no effect with algorithm.name={config.method.name}, which works in "
                "rounds; leave it out, or choose an asynchronous algorithm or server"
            )
        return None
    workers = config.slots()
    gradient = sends_gradient(config, method)
    for refusal in (*_refusals(config, method, workers), *_work_refusals(config, method, gradient)):
        raise ConfigError(refusal)
    return ArrivalPlan(
        method=method,
        workers=workers,
        sizes=sizes,
        schedule=config.schedule,
        seed=config.seed,
        rounds=rounds,
        arrivals_per_round=None if delays.seconds_per_round else delays.arrivals_per_round or workers,
        seconds_per_round=delays.seconds_per_round,
        gradient=gradient,
        lr=config.local.optimizer.lr,
        learning_rate=config.local.lr_schedule,
        local=local,
        attackers=config.participation.attackers(config.data.clients, config.seed),
        world=world,
    )


def sends_gradient(config: ExperimentConfig, method: AsyncAlgorithm) -> bool:
    """Whether clients send the gradient of one minibatch, rather than the delta of local training."""
    if config.delays.work is not None:
        return config.delays.work == "gradient"
    trains = config.local.epochs is not None or config.local.steps is not None or config.method.objective_is_special()
    return "gradient" in method.updates and not trains


def _refusals(config: ExperimentConfig, method: AsyncAlgorithm, workers: int) -> Iterator[str]:
    delays, schedule, participation = config.delays, config.schedule, config.participation
    given = f"algorithm.name={config.method.name}"
    for key in ("clients_per_round", "fraction"):
        if (value := getattr(participation, key)) is not None:
            yield f"participation.{key}={value}: has no effect with {given}; set delays.concurrency"
    if (sampler := participation.sampler.name) != DEFAULTS["sampler"]:
        yield (
            f"participation.sampler={sampler}: has no effect with {given}, where a free slot goes to a client drawn at "
            "random; leave it out"
        )
    for key in ("uplink_groups", "deadline"):
        if getattr(delays, key) is not None:
            yield f"delays.{delays.shown(key)}: has no effect with {given}, which has no rounds; leave it out"
    for key in ("round_deadline", "replay"):
        if (value := getattr(participation, key)) is not None:
            instead = "delays.replay" if key == "replay" else "delays.drop_rate"
            yield f"participation.{key}={value}: has no effect with {given}, which has no rounds; see {instead}"
    if participation.byzantine is not None and participation.byzantine.statistics:
        yield f"participation.byzantine.statistics=true: has no effect with {given}; leave it out"
    if config.runtime.combine == "node":
        yield f"runtime.combine=node: has no effect with {given}, whose updates are applied one by one; leave it out"
    if (actors := config.runtime.actors) is not None and actors > workers:
        yield f"runtime.actors={actors}: more than the {workers} tasks in flight; the rest would idle"
    if schedule.follows_training:
        yield (
            f"schedule.name={schedule.name} with {given}: follows what whole rounds have changed, which arrivals do "
            "not wait for; choose another schedule"
        )
    if method.barrier and not schedule.same_for_all:
        yield (
            f"schedule.name={schedule.name} with {given}: a lock-step takes one update of a group from every worker; "
            "choose another schedule, or an asynchronous algorithm"
        )
    if config.evaluation.per_client:
        yield f"evaluation.per_client=true: has no effect with {given}, where no cohort ends together; leave it out"
    if fraction := config.data.client_test_fraction:
        yield (
            f"data.client_test_fraction={fraction:g} with {given}: clients are scored in rounds, which an asynchronous "
            "run does not have; leave it out"
        )
    timed = delays.clock == "wall" and delays.seconds_per_round is not None and delays.replay is None
    if config.runtime.executor == "inline" and timed:
        yield (
            "delays.seconds_per_round with clock=wall: runtime.executor=inline runs one task after the other and "
            "cannot keep to the time; set arrivals_per_round"
        )


def _work_refusals(config: ExperimentConfig, method: AsyncAlgorithm, gradient: bool) -> Iterator[str]:
    local, given = config.local, f"algorithm.name={config.method.name}"
    work = "gradient" if gradient else "delta"
    if work not in method.updates:
        why = "it compares the learning rate itself" if work == "delta" else "it needs the clients' own parameters"
        yield f"delays.work={work} with {given}: {why}; set delays.work={method.updates[0]}"
    if not gradient:
        return
    for key in ("epochs", "steps"):
        if (value := getattr(local, key)) is not None:
            yield f"local.{key}={value}: has no effect with delays.work=gradient; leave it out, or set work=delta"
    optimizer = local.optimizer
    if not isinstance(optimizer, SGD) or optimizer.momentum:
        momentum = getattr(optimizer, "momentum", None)
        what = f"momentum={momentum}" if momentum else f"name={optimizer.name}"
        yield (
            f"local.optimizer.{what}: a worker that sends gradients takes no step; set name=sgd with momentum=0 (the "
            "server has the momentum: algorithm.momentum), or delays.work=delta"
        )
    if config.method.objective_is_special():
        yield (
            f"delays.work=gradient with {given}: its objective differs from the plain one only along several local "
            "steps; set delays.work=delta"
        )
