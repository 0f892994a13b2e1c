"""One experiment, from its configuration to what it leaves."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.components.own_code import changed_parts
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.identity import is_local
from fedbench.config.merge import merged, parse_overrides
from fedbench.config.runtime import RuntimeSection
from fedbench.errors import ConfigError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.interrupt import stop_signal
from fedbench.experiment.preparation import Preparation
from fedbench.experiment.result import Result
from fedbench.experiment.turns import its_turn
from fedbench.experiment.unedited import recorded_start
from fedbench.records.observers import ALONE, Membership, Observer
from fedbench.records.reader import CONFIG, load_events, recorded_drops
from fedbench.system.garbage import no_garbage_search
from fedbench.system.home import expanded
from fedbench.tracking.sending_process import SendingProcess, sending_process
from fedbench.tracking.store import check_experiment_name, environment_store

if TYPE_CHECKING:
    from fedbench.engine.interfaces import Executor
    from fedbench.engine.on_ray.warm_actors import WarmActors
    from fedbench.experiment.setup import Problem

EARLY_ERRORS = 0.5
"""Seconds for which a run looks at data and model before it starts Ray beside them."""

EARLY_ERRORS_OF_OWN_PARTS = 10.0
"""The same seconds where parts come from outside fedbench, so that most of what is wrong with them shows by then."""


def run(
    config: ExperimentConfig | str | Path | Mapping[str, Any],
    observers: Sequence[Observer] = (),
    member: Membership = ALONE,
    *,
    should_stop: Callable[[], bool] | None = None,
    warm: "WarmActors | None" = None,
    announce: Callable[[str], None] | None = None,
) -> Result:
    """Run an experiment: train, score and record it.

    An interrupt (Ctrl-C, SIGTERM) ends it at the end of the round; a second one at once.

    Args:
        config: the configuration, or what `ExperimentConfig.load` makes one of: a preset, a file, nested values.
        observers: told of every round, besides the run directory and MLflow.
        member: what the run is part of.
        should_stop: asked at the end of every round, in place of waiting for an interrupt.
        warm: whose actors are used, and stay; to be closed by the caller if this raises.
        announce: told in one line what is being started, where that takes many seconds.

    Raises:
        FedbenchError: bad configuration, data or model (before anything is recorded), or a run that could not go on
            (recorded as failed).
    """
    if not isinstance(config, ExperimentConfig):
        config = ExperimentConfig.load(config)
    _check_places(config)
    stopping = stop_signal() if should_stop is None else nullcontext(should_stop)
    with (
        stopping as stopped,
        _talking_to_mlflow(config, member, warm) as process,
        prepared(config, warm, announce, stopped if should_stop is None else _never) as (problem, executor),
    ):
        from fedbench.experiment.loop import ExperimentLoop

        return ExperimentLoop.create(problem, observers, member, process).record(executor, stopped)


def resume(
    directory: str | Path,
    overrides: Sequence[str] = (),
    observers: Sequence[Observer] = (),
    member: Membership = ALONE,
    *,
    warm: "WarmActors | None" = None,
    announce: Callable[[str], None] | None = None,
) -> Result:
    """Go on with a run that was interrupted, failed or killed, from its last checkpoint, or else from its start.

    The result is that of the unbroken run, bit for bit.

    Args:
        directory: the run directory.
        overrides: of `runtime` and `tracking`: where the rest runs may differ, what it is may not.
        observers: told of every further round.
        member: what the run is part of, for a store that does not know the run yet.
        warm, announce: as for `run`.

    Raises:
        FedbenchError: nothing is left to do, another process writes there, or as for `run`.
    """
    path = expanded(directory)
    recorded, summary = recorded_start(path)
    if summary is not None and summary["status"] == "finished":
        raise ConfigError(f"{path}: is finished; nothing is left to do")
    for text in overrides:
        if not is_local(text):
            raise ConfigError(f"{text}: a resumed run is what it was; only runtime, tracking and data.root may change")
    try:
        ExperimentConfig.from_mapping(recorded)
    except ConfigError as error:
        raise ConfigError(f"{path / CONFIG}: {error}") from None
    config = ExperimentConfig.from_mapping(merged(recorded, parse_overrides(overrides)))
    # Without a summary, the checkpoints know the content of the parts of one's own.
    if summary is not None and (changes := changed_parts(summary.get("own_code") or {}, config.own_code())):
        raise ConfigError(
            f"{path}: its code is no longer what the run began with ({'; '.join(changes)}); bring that back, or run it "
            "anew"
        )
    _check_places(config)
    with (
        stop_signal() as should_stop,
        _talking_to_mlflow(config, member, warm) as process,
        prepared(config, warm, announce, should_stop) as (problem, executor),
    ):
        from fedbench.experiment.loop import ExperimentLoop

        return ExperimentLoop.reopen(problem, path, observers, member, process, has_summary=summary is not None).record(
            executor, should_stop
        )


def _talking_to_mlflow(
    config: ExperimentConfig, member: Membership, warm: "WarmActors | None"
) -> "AbstractContextManager[SendingProcess | None]":
    """The process that talks to MLflow for a run on actors, beside whose start it imports mlflow.

    Runs on warm actors, those that lie below another one, and all but the first of a process talk to it themselves:
    they import mlflow once for all.
    """
    alone = warm is None and member.parent_run_id is None
    if config.tracking.enabled and config.runtime.executor != "inline" and alone:
        return sending_process(environment_store(config.tracking.mlflow_uri))
    return nullcontext()


def _check_places(config: ExperimentConfig) -> None:
    """Check the places that a configuration names, so that nothing is started or left behind where one is wrong.

    Raises:
        ConfigError: MLflow keeps no runs where the configuration or the environment says, or a password is missing.
        DataError: the data, or a recorded run that is to be followed again, are missing or damaged.
    """
    config.data.dataset.check(config.data.root)
    if config.tracking.enabled:
        check_experiment_name(config.tracking.experiment)
        environment_store(config.tracking.mlflow_uri)
    if config.participation.replay is not None:
        recorded_drops(config.participation.replay)
    if config.delays.replay is not None:
        load_events(config.delays.replay)


def _never() -> bool:
    return False


@contextmanager
def prepared(
    config: ExperimentConfig,
    warm: "WarmActors | None" = None,
    announce: Callable[[str], None] | None = None,
    interrupted: Callable[[], bool] = _never,
) -> "Iterator[tuple[Problem, Executor]]":
    """The problem and an executor for it; Ray starts while data and model are being made ready.

    Args:
        config: the experiment.
        warm, announce: as for `run`.
        interrupted: whether the user wants nothing of it any more.

    Raises:
        KeyboardInterrupt: the user has interrupted before it was ready.
    """
    with its_turn(interrupted, announce), _prepared(config, warm, announce, interrupted) as made_ready:
        yield made_ready


@contextmanager
def _prepared(
    config: ExperimentConfig,
    warm: "WarmActors | None",
    announce: Callable[[str], None] | None,
    interrupted: Callable[[], bool],
) -> "Iterator[tuple[Problem, Executor]]":
    """`prepared`, in its turn."""
    on_ray, has_own_parts = config.runtime.executor != "inline", bool(config.own_code())
    data_loaded, may_import_torch = threading.Event(), threading.Event()
    # In one process two imports take turns: Ray's daemons start earlier where PyTorch is imported after Ray.
    torch_can_wait = on_ray and not has_own_parts and "torch" not in sys.modules
    if not torch_can_wait:
        may_import_torch.set()
    with Preparation(lambda: _build(config, data_loaded, may_import_torch), interrupted) as building:
        if not on_ray:
            executor = _inline(building.result())
        else:
            # What is missing or misspelt mostly shows at once; then there is no need to start Ray for it. A model or a
            # method from outside fedbench is first tried out.
            try:
                seconds = EARLY_ERRORS_OF_OWN_PARTS if has_own_parts else EARLY_ERRORS - _import_ray()
            finally:
                may_import_torch.set()
            if building.is_done(0.0 if torch_can_wait and data_loaded.is_set() else seconds):
                building.result()
            if announce is not None:
                what = f"{config.model.name} on {config.data.dataset.name}"
                announce(f"starting {config.name}: {what}, {where_it_runs(config.runtime)}")
            if has_own_parts:
                building.result()  # they may draw from Python's global generator, and so does Ray when it starts
            executor = _on_cluster(config, building, warm)
    try:
        yield building.result(), executor
    finally:
        executor.close()


def _import_ray() -> float:
    """Import what starts Ray, which is imported anyway; returns the seconds that it took."""
    began = time.monotonic()
    with no_garbage_search():
        import fedbench.engine.on_ray.connection  # noqa: F401

    return time.monotonic() - began


def where_it_runs(runtime: RuntimeSection) -> str:
    """The place of a run, in words."""
    if runtime.executor == "inline":
        return "in this process"
    address = runtime.address or os.environ.get("RAY_ADDRESS")
    return f"on the Ray cluster at {address}" if address else "on a Ray of this machine"


def _build(config: ExperimentConfig, data_loaded: threading.Event, may_import_torch: threading.Event) -> "Problem":
    """Load the data, which is told at once, and build the problem as soon as PyTorch may be imported."""
    federation = load_federation(config)
    data_loaded.set()
    may_import_torch.wait()
    with no_garbage_search():  # PyTorch comes with this import; on a cluster it loads beside Ray.
        from fedbench.experiment.setup import build_problem
        from fedbench.experiment.work import check_work

    problem = build_problem(config, federation)
    check_work(problem)
    return problem


def _inline(problem: "Problem") -> "Executor":
    from fedbench.engine.arrivals.inline import InlineArrivalExecutor
    from fedbench.engine.rounds.inline import InlineRoundExecutor

    data, rows, budget = problem.federation.data, problem.federation.rows, problem.config.runtime.max_failed_clients
    if problem.arrivals is not None:
        return InlineArrivalExecutor(problem.spec, data, rows, problem.arrival_server, budget)
    return InlineRoundExecutor(problem.spec, data, rows, problem.server, budget, problem.federation.test_rows)


def _on_cluster(config: ExperimentConfig, building: "Preparation[Problem]", warm: "WarmActors | None") -> "Executor":
    from fedbench.engine.on_ray.connection import disconnect, join

    # The actors start, and import PyTorch, while this process does.
    has_to_leave = warm is None and join(config.runtime.address)
    try:
        from fedbench.engine.on_ray.actors import ActorCluster

        if warm is None:
            cluster = ActorCluster(config.runtime, config.slots(), owns_ray=has_to_leave)
        else:
            cluster = warm.lend(config.runtime, config.slots())
    except BaseException:
        if has_to_leave:
            disconnect()
        raise
    try:
        problem = building.result()
        from fedbench.engine.on_ray.arrivals import RayArrivalExecutor
        from fedbench.engine.on_ray.rounds import RayRoundExecutor

        # An actor with a share of a GPU uses it or refuses; one without leaves GPUs alone, even where it sees them.
        spec = replace(problem.spec, device="cuda" if cluster.gpus_each else "cpu", gpu_fraction=cluster.gpus_each)
        data, rows = problem.federation.data, problem.federation.rows
        if problem.arrivals is not None:
            return RayArrivalExecutor(cluster, spec, data, rows, problem.arrival_server, config.runtime)
        test_rows = problem.federation.test_rows
        return RayRoundExecutor(cluster, spec, data, rows, problem.server, config.runtime, test_rows)
    except BaseException:
        cluster.release()
        raise
