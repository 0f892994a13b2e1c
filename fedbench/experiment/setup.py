"""A configuration made concrete: the model laid out for the data, and what its rounds cost.

Whatever can be wrong with an experiment shows here or in `fedbench.experiment.federation`, before anything is recorded.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from torch import nn

from fedbench.accounting.costs import CostModel
from fedbench.accounting.totals import Costs
from fedbench.algorithms.base import Algorithm, Objective
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.identity import digest
from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.engine.arrivals.server import ArrivalServerSpec
from fedbench.engine.messages import HostSpec
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.errors import ConfigError
from fedbench.experiment.contracts import (
    check_attack,
    check_length,
    check_limits,
    check_method,
    check_optimizer,
    check_sampler,
    check_schedule,
    check_senders,
    cohorts,
)
from fedbench.experiment.device_memory import client_limits
from fedbench.experiment.exchanging import check_exchange, sent_groups
from fedbench.experiment.federation import Federation
from fedbench.experiment.initial_model import InitialModel, initial_model
from fedbench.experiment.keeping import check_keeping
from fedbench.experiment.limits import check_arrivals, check_rounds
from fedbench.experiment.measured import check_measures
from fedbench.experiment.privacy import check_privacy
from fedbench.experiment.references import remarks_on_references, round_length
from fedbench.experiment.remarks import (
    averaged_buffers,
    counted_twice,
    cut_schedule,
    idle_objectives,
    no_step,
    work_left_out,
)
from fedbench.experiment.setup_async import arrival_plan
from fedbench.experiment.specs import host_spec, keeps_statistics, server_spec, weight_decay
from fedbench.experiment.task_limits import check_task
from fedbench.experiment.virtual_world import make_world, mean_task_seconds, unknown_energies
from fedbench.models.base import Task
from fedbench.models.features import check_features
from fedbench.models.probe import trains_on
from fedbench.models.shared_tensors import ties_in_words
from fedbench.planning.capacities import Clients
from fedbench.planning.exchange import Trained
from fedbench.planning.schedules import Full
from fedbench.planning.worlds import World
from fedbench.protocol.layout import ParameterLayout, Vector
from fedbench.protocol.message import PartTable
from fedbench.training.metrics import check_metrics
from fedbench.training.minibatches import LocalLength


@dataclass(frozen=True)
class Problem:
    """All that a run is, apart from where it runs.

    Attributes:
        layout: of the model's parameters.
        vector, statistics: the initial model.
        constants: {name: values} of what else a saved model holds.
        saved_names: {name in a saved model: name in the layout or in the constants}.
        retention: as `FlatModel.retention`.
        costs: of clients and rounds.
        rounds: number of rounds.
        cohort_size: participants of a round.
        spec: for client hosts, as the only process on their device.
        server: what the server is made from, where there are rounds.
        arrivals: an asynchronous run, apart from where it runs; None where there are rounds.
        world: devices, links and times of the clients; None where no profile is set.
        own_code: the content of the parts of one's own, as it was when the problem was built.
        remarks: what a user should know of this combination, one line each.
    """

    config: ExperimentConfig
    federation: Federation
    layout: ParameterLayout
    vector: Vector
    statistics: Vector
    constants: dict[str, npt.NDArray[np.generic]]
    saved_names: dict[str, str]
    retention: Vector
    costs: CostModel
    rounds: int
    cohort_size: int
    spec: HostSpec
    server: ServerSpec
    arrivals: ArrivalPlan | None
    world: World | None
    own_code: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Identifies the run: hex digest of its configuration and of the parts of one's own."""
        return digest(self.config.to_mapping(), self.own_code)

    @property
    def arrival_server(self) -> ArrivalServerSpec:
        """What the server of an asynchronous run is made from."""
        assert self.arrivals is not None
        plan = self.arrivals
        return ArrivalServerSpec(
            table=self.spec.table,
            vector=self.vector,
            statistics=self.statistics,
            retention=self.retention,
            share=1.0 if plan.gradient else 1.0 / plan.workers,
            workers=plan.method.count_workers(plan.workers, len(plan.sizes)),
            method=plan.method,
            weight_decay=weight_decay(self.config) if plan.gradient and plan.method.decays_at_server else 0.0,
            seed=self.config.seed,
        )


def build_problem(config: ExperimentConfig, federation: Federation, *, foresees: bool = False) -> Problem:
    """Build the model, derive its layer groups, and check that configuration, data and model fit together.

    Args:
        config: the experiment.
        federation: its data, divided over the clients.
        foresees: whether the costs alone are asked for. The values of a large model are then all zero, and take no
            memory.

    Raises:
        ModelError: the model cannot serve the data.
        ConfigError: options that clash or would have no effect.
    """
    model = initial_model(config, federation.task, foresees=foresees)
    rounds = count_rounds(config, model.layout.groups)
    world, limits = _checked_world(config, federation, model, rounds)
    local, method = config.local, config.method
    length = LocalLength(local.batch_size, local.round_epochs, local.steps, model.smallest_batch)
    length = round_length(config, federation, length, rounds)
    _check_single_rows(config, federation, length, model.module)
    update = config.update.pipeline(config.slots())
    table = PartTable(model.layout, not keeps_statistics(config), method.objective().channels)
    check_privacy(config, table, federation.sizes, length, rounds, limits)
    remarks = _remarks(config, federation, model, rounds, length, world)
    objective = _checked_objective(method, federation.task, model)
    costs = CostModel(
        table,
        model.flops,
        model.macs,
        sizes=federation.sizes,
        local=length,
        update=update,
        extra_passes=cache(lambda active: objective.extra_passes(active, model.layout, model.module)),
        rows_bytes=federation.pooled_bytes,
        reports_norms=config.schedule.reads_gradient_norms,
    )
    arrivals = arrival_plan(config, federation.sizes, length, rounds, world)
    if arrivals is not None and world is not None:
        arrivals = replace(arrivals, task_seconds=mean_task_seconds(world, costs, arrivals))
    check_arrivals(config, arrivals)
    return Problem(
        config=config,
        federation=federation,
        layout=model.layout,
        vector=model.vector,
        statistics=model.statistics,
        constants=model.constants,
        saved_names=model.saved_names,
        retention=model.retention,
        costs=costs,
        rounds=rounds,
        cohort_size=config.slots(),
        spec=host_spec(config, federation, model, table, length, update, rounds),
        server=server_spec(config, federation, model, table, length, update, rounds, limits),
        arrivals=arrivals,
        world=world,
        own_code=config.own_code(),
        remarks=remarks,
    )


def _checked_world(
    config: ExperimentConfig, federation: Federation, model: InitialModel, rounds: int
) -> tuple[World | None, Clients]:
    """Devices, links and times of the clients, and what each client may train, once the parts keep to their contracts.

    Raises:
        ConfigError: options that clash or would have no effect, or a part that does not keep to its base class.
    """
    task, layout, method = federation.task, model.layout, config.method
    check_keeping(config, federation.sizes, rounds)
    method.check(config)
    check_exchange(config)
    check_measures(config, rounds)
    check_task(config, task.target)
    check_metrics(
        config.evaluation.metrics, task.classes, task.target, some_do_not_count=not federation.data.all_scored_count
    )
    world = make_world(config)
    check_limits(config)
    limits = client_limits(config, world, task, federation.sizes, layout, rounds, model.base)
    _check_contracts(config, layout, federation.sizes, task.classes, rounds, limits)
    if config.runtime.combine == "node" and config.asynchronous is None and not method.sums():
        raise ConfigError(
            f"runtime.combine=node: {method.name} looks at single updates, not at their sum; leave it out"
        )
    return world, limits


def _checked_objective(method: Algorithm, task: Task, model: InitialModel) -> Objective:
    """The method's objective.

    Raises:
        ConfigError: it cannot be computed with the model.
    """
    objective = method.objective()
    if (refusal := objective.refusal(model.layout, model.module)) is not None:
        raise ConfigError(refusal)
    if objective.reads_features:
        check_features(model.module, task, method.name)
    return objective


def _remarks(
    config: ExperimentConfig,
    federation: Federation,
    model: InitialModel,
    rounds: int,
    length: LocalLength,
    world: World | None,
) -> tuple[str, ...]:
    """What a user should know of this combination, one line each."""
    method, layout, module = config.method, model.layout, model.module
    return (
        *federation.remarks,
        *remarks_on_references(method, federation, length),
        *(f"model.name={config.model.name}: {line}" for line in ties_in_words(module)),
        *averaged_buffers(config, module),
        *idle_objectives(config, method, layout, module, rounds),
        *counted_twice(config, method),
        *cut_schedule(config, layout, rounds),
        *no_step(config, rounds),
        *work_left_out(model.flops.uncounted),
        *unknown_energies(world),
    )


def count_rounds(config: ExperimentConfig, groups: int) -> int:
    """The number of rounds that the configuration asks for, for a model of `groups` layer groups.

    Raises:
        ConfigError: `rounds: auto` without an end, or more rounds than the schedule has.
    """
    length = check_length(config.schedule, groups)
    if length is not None:
        check_rounds(length, f"schedule.name={config.schedule.name}")
    if config.rounds == "auto":
        if length is None:
            raise ConfigError(f"rounds=auto: schedule.name={config.schedule.name} has no end; set rounds to a number")
        return length
    check_rounds(config.rounds, f"rounds={config.rounds}")
    if length is not None and config.rounds > length:
        raise ConfigError(
            f"rounds={config.rounds}: the schedule ends after {length} rounds with {groups} layer groups; "
            "raise schedule.cycles, or set rounds=auto"
        )
    return config.rounds


def full_update_costs(problem: Problem, rounds: int) -> list[Costs]:
    """What the first `rounds` rounds would cost as full network updates, each.

    Of asynchronous runs see `FinishedRound.full`.
    """
    config = problem.config
    sampler = config.participation.sampler
    return problem.costs.project(Full(), rounds, problem.cohort_size, config.seed, sampler, world=problem.world)


def pace(problem: Problem) -> str:
    """Describes how many clients take part at a time and how long the run is."""
    who = f"{problem.cohort_size} of {problem.config.data.clients} clients"
    if problem.federation.pooled_sizes:
        who = f"the rows of {problem.config.data.clients} clients in one place"
    if problem.arrivals is None:
        return f"{who} in each of {problem.rounds} rounds"
    plan, clock = problem.arrivals, problem.config.delays.clock
    length = f"{plan.seconds_per_round:g} s" if plan.seconds_per_round else f"{plan.arrivals_per_round} arrivals"
    return f"{who} at work at a time, {problem.rounds} rounds of {length} on the {clock} clock"


def _check_contracts(
    config: ExperimentConfig,
    layout: ParameterLayout,
    sizes: tuple[int, ...],
    classes: int,
    rounds: int,
    limits: Clients,
) -> None:
    """Refuse a schedule, a sampler, an attack, an optimizer or a method that does not keep to its base class."""
    seed, clients, cohort_size = config.seed, config.data.clients, config.slots()
    sampler, cohort = config.participation.sampler, cohorts(config, sizes)
    in_rounds = config.asynchronous is None
    check_schedule(config.schedule, rounds, layout, seed, cohort, limits)
    if in_rounds and sampler.follows_training:
        check_sampler(sampler, rounds, cohort_size, sizes, seed)
    if config.participation.byzantine is not None:
        check_attack(config.participation.byzantine, classes)
    check_optimizer(config.local.optimizer)
    check_method(config.asynchronous or config.method, layout, cohort_size, clients)
    if in_rounds and (config.method.rule().fewest > 1 or not isinstance(config.chosen_exchange, Trained)):
        check_senders(config.method, layout, sent_groups(config, layout, rounds, cohort, limits))


def _check_single_rows(
    config: ExperimentConfig, federation: Federation, length: LocalLength, module: nn.Module
) -> None:
    """Refuse minibatches of one row where a layer of the network needs several to normalise over.

    Raises:
        ConfigError: a client would train on such a minibatch.
    """
    single = [client for client, size in enumerate(federation.sizes) if 1 in length.epoch(size)]
    if length.smallest == 1 or not single or trains_on(module, federation.task, batch_size=1):
        return
    if length.batch_size == 1:
        raise ConfigError(
            f"local.batch_size=1: model.name={config.model.name} normalises over the minibatch, and cannot train on one"
            " row; set local.batch_size to 2 or more"
        )
    more = f" and {len(single) - 1} others" if len(single) > 1 else ""
    raise ConfigError(
        f"data.partition: client {single[0]}{more} would hold one training row, and model.name={config.model.name} "
        "normalises over the minibatch; give each client 2 rows or more (fewer clients, or data.partition.min_size=2 "
        "where the partition has it)"
    )
