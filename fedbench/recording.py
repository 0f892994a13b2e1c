"""Running the rounds of one problem, and telling everyone who should know; checkpoints, and going on from them."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedbench.accounting.totals import Costs
from fedbench.config import ExperimentConfig
from fedbench.deadlines import Drops, recorded_drops
from fedbench.description import describe, versions
from fedbench.errors import FedbenchError, HangingClients, HeadGone, LostActor, RunError
from fedbench.parameters import ParameterLayout, Vector, model_digest
from fedbench.recorded import CLIENTS
from fedbench.records import ALONE, Membership, Observer
from fedbench.run_directory import RunDirectory
from fedbench.saving import Saving
from fedbench.tracking import MlflowTracker

if TYPE_CHECKING:
    import torch

    from fedbench.engine.asynchronous import Arrivals
    from fedbench.engine.clocks import Clock
    from fedbench.engine.executor import Executor
    from fedbench.engine.synchronous import FinishedRound, Rounds
    from fedbench.problem import Problem
    from fedbench.snapshots import Tree


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


class Recording:
    """Runs the rounds of one problem and tells everyone who should know. Make one with `create` or `reopen`."""

    def __init__(
        self,
        problem: "Problem",
        directory: RunDirectory,
        saving: Saving,
        observers: Sequence[Observer],
        key: str,
        member: Membership = ALONE,
    ) -> None:
        """Args:
        saving: its checkpoints.
        observers: told of every round, besides the run directory and MLflow.
        key: by which MLflow knows the recording again.
        member: what the run is part of.
        """
        config = problem.config
        self._problem = problem
        self._directory = directory
        self._saving = saving
        self._tracker: MlflowTracker | None = None
        if config.tracking.enabled:
            tracking = config.tracking
            self._tracker = MlflowTracker(
                tracking.mlflow_uri,
                tracking.experiment,
                {**member.tags, **tracking.tags},
                member.run_name,
                parent_run_id=member.parent_run_id,
                recording=key,
                judge=member.judge,
            )
        self._others: list[Observer] = [*([self._tracker] if self._tracker else []), *observers]
        self._observers: list[Observer] = [directory, *self._others]
        self._restored: Tree | None = None
        self._told = -1
        self._full = Costs()
        self._earlier_seconds = 0.0
        self._notes: list[str] = []
        self._last_accuracy: float | None = None
        self._drops = Drops(config.participation.round_deadline)
        if config.participation.replay is not None:
            self._drops.decided |= recorded_drops(config.participation.replay)

    @classmethod
    def create(cls, problem: "Problem", observers: Sequence[Observer], member: Membership = ALONE) -> "Recording":
        """A new run.

        Raises:
            ConfigError: the run directory is not empty, or cannot be made.
        """
        config = problem.config
        directory = RunDirectory.create(config.name, config.seed, config.output.directory)
        saving = Saving(directory, config)
        key = uuid.uuid4().hex
        saving.remember(key)
        return cls(problem, directory, saving, observers, key, member)

    @classmethod
    def reopen(
        cls, problem: "Problem", path: Path, observers: Sequence[Observer], member: Membership = ALONE
    ) -> "Recording":
        """A run that goes on from its last checkpoint, or from its start if there is none.

        Raises:
            FedbenchError: the directory is not a run's, or another process writes there.
        """
        saving, found = Saving.reopen(path, problem.config)
        next_round, state = found or (0, None)
        drops = recorded_drops(path / CLIENTS)
        directory = RunDirectory.reopen(path, next_round)
        saving.attach(directory)
        recording = cls(problem, directory, saving, observers, saving.key, member)
        history = directory.history()
        if recording._tracker is not None:
            recording._tracker.resumed(history)
        recording._drops.decided |= drops
        recording._restored = state
        recording._told = next_round - 1
        recording._earlier_seconds = float(sum(history.column("wall_seconds").to_pylist()))
        recording._notes += saving.refused
        return recording

    def record(self, executor: "Executor", should_stop: Callable[[], bool]) -> Result:
        """Run to the end, an interrupt or a failure; record whichever it was.

        Raises:
            FedbenchError: the run could not go on.
        """
        began = time.perf_counter()
        history = self._directory.history()
        sent = sum(sum(history.column(name).to_pylist()) for name in ("uplink_bytes", "downlink_bytes"))
        description = replace(describe(self._problem, self._directory.path), sent_bytes=sent)
        for observer in self._observers:
            observer.run_started(description)
        try:
            stopped, (vector, statistics) = self._run_rounds(executor, should_stop)
            peaks = executor.peak_memory()
            self._directory.write_model(named_tensors(self._problem.layout, vector, statistics))
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            summary = self._summary("interrupted" if interrupted else "failed", began)
            summary["error"] = str(error) if isinstance(error, FedbenchError) else f"{type(error).__name__}: {error}"
            try:
                self._finish(summary)
            except RunError as second:  # says less than what came first
                error.add_note(str(second))
            if isinstance(error, LostActor | HeadGone):  # what happened to the cluster need not happen again
                error.add_note(f"go on with: fedbench resume {self._directory.path}")
            raise
        finally:
            self._saving.release()
        summary = self._summary("interrupted" if stopped else "finished", began)
        summary["model_sha256"] = model_digest(vector, statistics)
        summary["peak_actor_bytes"] = max(peaks, default=None)
        self._finish(summary)
        return Result(
            summary=summary,
            history=self._directory.history(),
            directory=self._directory.path,
            warnings=self._warnings(summary),
            ui_command=self._tracker.ui_command() if self._tracker else None,
        )

    def _run_rounds(
        self, executor: "Executor", should_stop: Callable[[], bool]
    ) -> "tuple[bool, tuple[Vector, Vector]]":
        """(whether it was stopped before the end, the model). What a lost actor takes with it is done again."""
        state, losses = self._restored, 0
        while True:
            try:
                if losses:
                    executor.rebuild()
                return self._go_on(executor, should_stop, state)
            except LostActor as error:
                losses += 1
                if losses > (most := self._problem.config.runtime.max_retries):
                    raise LostActor(f"{error}; runtime.max_retries={most} is used up") from error
                next_round, state = self._saving.latest() or (0, None)
                if isinstance(error, HangingClients):
                    self._drops.hang(error.round_index, error.clients)
                self._notes.append(f"{error}; went on from round {next_round + 1}")
                self._directory.rewind(next_round)

    def _go_on(
        self, executor: "Executor", should_stop: Callable[[], bool], state: "Tree | None"
    ) -> "tuple[bool, tuple[Vector, Vector]]":
        course = self._course(executor)
        self._full = Costs()
        if state is not None:
            executor.restore(state["executor"])
            course.restore(state["course"])
            self._full = state["full"]
        last, done = self._problem.rounds, len(self._directory.history())
        every = self._problem.config.evaluation.every

        def snapshot() -> "Tree":
            return {"executor": executor.state(), "course": course.state(), "full": self._full}

        for finished in course.rounds(every, should_stop):
            done += 1
            self._take(finished)
            if done < last:
                self._saving.save_if_due(done, snapshot)
                if executor.could_grow():
                    kept = executor.state()
                    executor.rebuild()
                    executor.restore(kept)
        if done < last:
            self._saving.save(done, snapshot)
            if every > 1:
                self._last_accuracy = course.accuracy()  # not a row: the run that goes on has none there
        return done < last, executor.model()

    def _take(self, finished: "FinishedRound") -> None:
        """Keep a round, and tell of it, if it is not one that was done before and is done again."""
        self._full += finished.full or Costs()
        self._directory.arrivals_finished(finished.arrivals)
        self._directory.round_finished(finished.record, finished.clients)
        if finished.record.round <= self._told:
            return
        self._told = finished.record.round
        for observer in self._others:
            observer.round_finished(finished.record, finished.clients)

    def _course(self, executor: "Executor") -> "Rounds | Arrivals":
        from fedbench.engine.asynchronous import Arrivals
        from fedbench.engine.executor import ArrivalExecutor, RoundExecutor
        from fedbench.engine.synchronous import Rounds

        problem, config = self._problem, self._problem.config
        if isinstance(executor, ArrivalExecutor):
            assert problem.arrivals is not None
            clock = make_clock(config, executor.ready)
            return Arrivals(problem.arrivals, executor, clock, problem.costs, config.runtime.max_failed_clients)
        assert isinstance(executor, RoundExecutor)
        return Rounds(
            executor,
            problem.costs,
            rounds=problem.rounds,
            evaluate_clients=config.evaluation.per_client,
            drops=self._drops,
        )

    def _finish(self, summary: dict[str, Any]) -> None:
        """Tell everyone; a directory that cannot be written keeps nobody else from hearing of it.

        Raises:
            RunError: the directory cannot be written.
        """
        failure: RunError | None = None
        for observer in self._observers:
            try:
                observer.run_finished(summary)
            except RunError as error:
                failure, summary = error, summary | {"status": "failed", "error": str(error)}
        if failure is not None:
            raise failure

    def _summary(self, status: str, began: float) -> dict[str, Any]:
        config = self._problem.config
        history = self._directory.history()
        columns = {name: history.column(name).to_pylist() for name in history.column_names}
        scores = [score for score in [*columns["test_accuracy"], self._last_accuracy] if score is not None]
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
            "dropped_clients": sum(columns["dropped_clients"]),
            "wall_seconds": self._earlier_seconds + time.perf_counter() - began,
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
        table = self._directory.arrivals()
        statuses = table.column("status").to_pylist()
        staleness = zip(statuses, table.column("staleness").to_pylist(), strict=True)
        accepted = [value for status, value in staleness if status == "ok"]
        return {
            "clock": self._problem.config.delays.clock,
            "virtual_seconds": columns["virtual_seconds"][-1] if columns["virtual_seconds"] else 0.0,
            "arrivals": sum(columns["clients"]),
            "lost_updates": statuses.count("lost"),
            "staleness_mean": sum(accepted) / len(accepted) if accepted else None,
            "staleness_max": max(accepted, default=None),
            "epochs": columns["epochs"][-1] if columns["epochs"] else 0.0,
        }

    def _epsilon(self, rounds: int) -> float | None:
        """Of the (epsilon, update.delta) that the noise has bought so far; None without noise, or where a share of it
        went missing with a rejected update or a dropped client."""
        update, history = self._problem.config.update, self._directory.history()
        missing = [history.column(name).to_pylist() for name in ("rejected_clients", "dropped_clients")]
        if update.noise_multiplier is None or any(map(any, missing)):
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
        tracker = self._tracker.warning if self._tracker else None
        found = [*self._problem.remarks, *self._notes, self._directory.warning, self._saving.warning, tracker]
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
