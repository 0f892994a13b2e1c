"""One experiment, from its configuration to what it leaves."""

import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fedbench import __version__
from fedbench.accounting.totals import Costs
from fedbench.config import ExperimentConfig
from fedbench.errors import FedbenchError
from fedbench.federation import load_federation
from fedbench.parameters import ParameterLayout, Vector, model_digest
from fedbench.records import ArrivalRecord, Observer, RunDescription
from fedbench.run_directory import RunDirectory
from fedbench.tracking import MlflowTracker

if TYPE_CHECKING:
    import torch

    from fedbench.engine.clocks import Clock
    from fedbench.engine.executor import Executor
    from fedbench.engine.synchronous import FinishedRound
    from fedbench.problem import Problem

EARLY_ERRORS = 0.5
"""Seconds for which a run looks at data and model before it starts Ray beside them."""


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        summary: as in `summary.json`.
        history: as in `rounds.parquet`.
        directory: the run directory.
        warnings: what could not be recorded, or deserves a second look.
        ui_command: opens MLflow's pages on the run; None without MLflow, or where a server shows them.
    """

    summary: dict[str, Any]
    history: pa.Table
    directory: Path
    warnings: tuple[str, ...]
    ui_command: str | None

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """The final global model, as its module's `load_state_dict` takes it."""
        import torch
        from safetensors.torch import load_file

        tensors = load_file(self.directory / "model.safetensors")
        counters = {
            name.removesuffix("running_mean") + "num_batches_tracked": torch.tensor(0)
            for name in tensors
            if name.endswith("running_mean")
        }
        return tensors | counters


def run(config: ExperimentConfig, observers: Sequence[Observer] = ()) -> Result:
    """Run an experiment: train, score and record it.

    An interrupt (Ctrl-C, SIGTERM) ends it at the end of the round; a second one at once.

    Args:
        observers: told of every round, besides the run directory and MLflow.

    Raises:
        FedbenchError: bad configuration, data or model (before anything is recorded), or a run that could not go on
            (recorded as failed).
    """
    with stop_signal() as should_stop, prepared(config) as (problem, executor):
        return Recording(problem, observers).record(executor, should_stop)


@contextmanager
def prepared(config: ExperimentConfig) -> "Iterator[tuple[Problem, Executor]]":
    """The problem and an executor for it; Ray starts while data and model are being made ready."""
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(_build, config)
        if config.runtime.executor == "inline":
            executor = _inline(building.result())
        else:
            # What is missing or misspelt mostly shows at once; then there is no need to start Ray for it.
            wait([building], timeout=EARLY_ERRORS)
            if building.done():
                building.result()
            executor = _on_cluster(config, building)
    try:
        yield building.result(), executor
    finally:
        executor.close()


def _build(config: ExperimentConfig) -> "Problem":
    federation = load_federation(config)
    # PyTorch comes with this import; on a cluster it loads beside Ray.
    from fedbench.problem import build_problem

    return build_problem(config, federation)


def _inline(problem: "Problem") -> "Executor":
    from fedbench.engine.executor import InlineExecutor
    from fedbench.engine.inline_arrivals import InlineArrivals

    data, rows, budget = problem.federation.data, problem.federation.rows, problem.config.runtime.max_failed_clients
    if problem.arrivals is not None:
        return InlineArrivals(problem.spec, data, rows, problem.arrival_server, budget)
    return InlineExecutor(problem.spec, data, rows, problem.server, budget)


def _on_cluster(config: ExperimentConfig, building: "Future[Problem]") -> "Executor":
    from fedbench.engine.cluster import Cluster
    from fedbench.engine.ray_arrivals import RayArrivals
    from fedbench.engine.ray_rounds import RayExecutor

    cluster = Cluster(config.runtime, config.slots())
    try:
        problem = building.result()
        spec = replace(problem.spec, gpu_fraction=cluster.gpus_each)
        data, rows = problem.federation.data, problem.federation.rows
        if problem.arrivals is not None:
            return RayArrivals(cluster, spec, data, rows, problem.arrival_server, config.runtime)
        return RayExecutor(cluster, spec, data, rows, problem.server, config.runtime)
    except BaseException:
        cluster.close()
        raise


class Recording:
    """Runs the rounds of one problem and tells everyone who should know."""

    def __init__(self, problem: "Problem", observers: Sequence[Observer]) -> None:
        config = problem.config
        self._problem = problem
        self._directory = RunDirectory.create(config.name, config.seed, config.output.directory)
        self._tracker: MlflowTracker | None = None
        if config.tracking.enabled:
            tracking = config.tracking
            self._tracker = MlflowTracker(tracking.mlflow_uri, tracking.experiment, tracking.tags)
        recorders: list[Observer] = [self._directory, *([self._tracker] if self._tracker else [])]
        self._observers: list[Observer] = [*recorders, *observers]
        self._arrivals: list[ArrivalRecord] = []
        self._full = Costs()

    def record(self, executor: "Executor", should_stop: Callable[[], bool]) -> Result:
        """Run to the end, an interrupt or a failure; record whichever it was.

        Raises:
            FedbenchError: the run could not go on.
        """
        began = time.perf_counter()
        description = describe(self._problem, self._directory.path)
        for observer in self._observers:
            observer.run_started(description)
        try:
            stopped = self._run_rounds(executor, should_stop)
            vector, statistics = executor.model()
            peaks = executor.peak_memory()
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            summary = self._summary("interrupted" if interrupted else "failed", began)
            summary["error"] = str(error) if isinstance(error, FedbenchError) else f"{type(error).__name__}: {error}"
            self._finish(summary)
            raise
        layout = self._problem.layout
        self._directory.write_model(named_tensors(layout, vector, statistics))
        summary = self._summary("interrupted" if stopped else "finished", began)
        summary["model_sha256"] = model_digest(vector, statistics)
        summary["peak_actor_bytes"] = max(peaks)
        self._finish(summary)
        return Result(
            summary=summary,
            history=self._directory.history(),
            directory=self._directory.path,
            warnings=self._warnings(summary),
            ui_command=self._tracker.ui_command() if self._tracker else None,
        )

    def _run_rounds(self, executor: "Executor", should_stop: Callable[[], bool]) -> bool:
        done = 0
        for finished in self._rounds(executor, should_stop):
            done += 1
            self._full += finished.full or Costs()
            self._arrivals += finished.arrivals
            self._directory.arrivals_finished(finished.arrivals)
            for observer in self._observers:
                observer.round_finished(finished.record, finished.clients)
        return done < self._problem.rounds

    def _rounds(self, executor: "Executor", should_stop: Callable[[], bool]) -> "Iterator[FinishedRound]":
        from fedbench.engine.asynchronous import Arrivals
        from fedbench.engine.executor import ArrivalExecutor, RoundExecutor
        from fedbench.engine.synchronous import synchronous_rounds

        problem, evaluation = self._problem, self._problem.config.evaluation
        if isinstance(executor, ArrivalExecutor):
            assert problem.arrivals is not None
            clock = make_clock(problem.config, executor.ready)
            budget = problem.config.runtime.max_failed_clients
            return Arrivals(problem.arrivals, executor, clock, problem.costs, budget).rounds(
                evaluation.every, should_stop
            )
        assert isinstance(executor, RoundExecutor)
        return synchronous_rounds(
            executor,
            problem.costs,
            rounds=problem.rounds,
            evaluate_every=evaluation.every,
            evaluate_clients=evaluation.per_client,
            should_stop=should_stop,
        )

    def _finish(self, summary: dict[str, Any]) -> None:
        for observer in self._observers:
            observer.run_finished(summary)

    def _summary(self, status: str, began: float) -> dict[str, Any]:
        config = self._problem.config
        history = self._directory.history()
        columns = {name: history.column(name).to_pylist() for name in history.column_names}
        scores = [score for score in columns["test_accuracy"] if score is not None]
        return {
            "name": config.name,
            "status": status,
            "rounds": history.num_rows,
            "best_accuracy": max(scores, default=None),
            "final_accuracy": scores[-1] if scores else None,
            "uplink_bytes": sum(columns["uplink_bytes"]),
            "downlink_bytes": sum(columns["downlink_bytes"]),
            "transport_bytes": sum(columns["transport_bytes"]),
            "client_flops": sum(columns["client_flops"]),
            "paper_comm_gb": columns["paper_comm_gb"][-1] if history.num_rows else 0.0,
            "paper_comp_tflop": columns["paper_comp_tflop"][-1] if history.num_rows else 0.0,
            "full_updates": self._full_updates(history.num_rows),
            "rejected_clients": sum(columns["rejected_clients"]),
            "wall_seconds": time.perf_counter() - began,
            "seed": config.seed,
            "parameters": self._problem.layout.size,
            "layer_groups": self._problem.layout.groups,
            "privacy_epsilon": self._epsilon(history.num_rows),
            "config_hash": config.digest(),
            "versions": versions(),
            **(self._of_arrivals(columns) if self._problem.arrivals is not None else {}),
        }

    def _of_arrivals(self, columns: dict[str, list[Any]]) -> dict[str, Any]:
        """What the summary of an asynchronous run has besides."""
        accepted = [arrival.staleness for arrival in self._arrivals if arrival.status == "ok"]
        return {
            "clock": self._problem.config.delays.clock,
            "virtual_seconds": columns["virtual_seconds"][-1] if columns["virtual_seconds"] else 0.0,
            "arrivals": sum(columns["clients"]),
            "lost_updates": sum(arrival.status == "lost" for arrival in self._arrivals),
            "staleness_mean": sum(accepted) / len(accepted) if accepted else None,
            "staleness_max": max(accepted, default=None),
            "epochs": columns["epochs"][-1] if columns["epochs"] else 0.0,
        }

    def _epsilon(self, rounds: int) -> float | None:
        """Of the (epsilon, update.delta) that the noise has bought so far; None without noise, or where a share of it
        went missing with a rejected update."""
        update = self._problem.config.update
        if update.noise_multiplier is None or any(self._directory.history().column("rejected_clients").to_pylist()):
            return None
        from fedbench.privacy import epsilon

        rate = self._problem.cohort_size / self._problem.config.data.clients
        return epsilon(update.noise_multiplier, rate, rounds, update.delta)

    def _full_updates(self, rounds: int) -> dict[str, float]:
        from fedbench.accounting.totals import total
        from fedbench.problem import full_update_costs

        costs = self._full
        if self._problem.arrivals is None:
            costs = total(full_update_costs(self._problem)[:rounds])
        return {
            "uplink_bytes": costs.uplink_bytes,
            "downlink_bytes": costs.downlink_bytes,
            "client_flops": costs.client_flops,
            "paper_comm_gb": costs.paper_comm_gb,
            "paper_comp_tflop": costs.paper_comp_tflop,
        }

    def _warnings(self, summary: dict[str, Any]) -> tuple[str, ...]:
        found = [*self._problem.remarks, self._directory.warning, self._tracker.warning if self._tracker else None]
        chance = 1 / self._problem.federation.data.classes
        best = summary["best_accuracy"]
        if summary["status"] == "finished" and best is not None and best < 1.5 * chance:
            found.append(f"the best accuracy, {best:.1%}, is close to chance ({chance:.1%}): look at lr and rounds")
        return tuple(warning for warning in found if warning)


def make_clock(config: ExperimentConfig, ready: Callable[[float], int | None]) -> "Clock":
    """The clock of an asynchronous run.

    Args:
        ready: waits for a finished work, as an executor does.

    Raises:
        DataError: `delays.replay` names no record of arrivals.
    """
    from fedbench.engine.clocks import ReplayClock, VirtualClock, WallClock

    delays = config.delays
    if delays.replay is not None:
        return ReplayClock(delays.replay, delays.clock)
    if delays.clock == "wall":
        return WallClock(ready)
    return VirtualClock(delays, config.seed, config.data.clients)


def named_tensors(layout: ParameterLayout, vector: Vector, statistics: Vector) -> dict[str, Vector]:
    """{parameter or statistic name: array in its logical shape}."""
    tensors = layout.unflatten(vector)
    return tensors | {slot.name: slot.view(statistics) for slot in layout.statistics}


def describe(problem: "Problem", directory: Path) -> RunDescription:
    """The run in words and plain values."""
    from fedbench.problem import pace

    config, data = problem.config, problem.federation.data
    names = {
        "algorithm": config.method.name,
        "schedule": config.schedule.name,
        "dataset": config.data.dataset.name,
        "model": config.model.name,
    }
    title = f"{names['algorithm']}, {names['schedule']} schedule, {names['model']} on {names['dataset']}"
    sizes = problem.federation.sizes
    size = f"{sizes[0]:,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    note = (
        f"**{title}**\n\n"
        f"{len(sizes)} clients ({config.data.partition.name} partition, {size} samples each), "
        f"{pace(problem)}. "
        f"The model has {problem.layout.size:,} parameters in {problem.layout.groups} layer groups. "
        f"Seed {config.seed}; configuration {config.digest()}.\n\n"
        f"Files: `{directory}`"
    )
    return RunDescription(
        config=config.to_mapping(),
        title=title,
        note=note,
        tags=names,
        rounds=problem.rounds,
        directory=str(directory),
        dataset_name=data.name,
        dataset_source=data.source,
        dataset_digest=data.fingerprint,
        class_names=data.class_names,
        client_class_counts=problem.federation.counts,
        test_samples=len(data.test),
    )


def versions() -> dict[str, str]:
    """Of what the result depends on."""
    import torch

    return {
        "fedbench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """While open, the first SIGINT or SIGTERM is remembered instead of raised; the second works as always.

    Outside the main thread, where signals cannot be caught, nothing changes.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return

    def remember(number: int, frame: object) -> None:
        stop.set()
        for known, handler in previous.items():
            signal.signal(known, handler)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
