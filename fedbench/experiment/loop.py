"""The loop of one experiment: run its rounds, tell every observer, save checkpoints, go on after a loss or from a file.

Importing this module loads PyTorch.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedbench.accounting.totals import Costs
from fedbench.checkpoints.files import Checkpoint
from fedbench.checkpoints.state import Tree
from fedbench.engine.arrivals.clocks import make_clock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.bookkeeping import FinishedRound
from fedbench.engine.divergence import check_model, remedy
from fedbench.engine.interfaces import ArrivalExecutor, Executor, RoundExecutor
from fedbench.engine.messages import DeviceRecord
from fedbench.engine.rounds.loop import RoundLoop
from fedbench.engine.rounds.virtual_rounds import VirtualRounds
from fedbench.errors import DataError, FedbenchError, HangingClients, HeadGone, LostActor, RunError, UnusableCheckpoint
from fedbench.experiment.base_records import base_entries, check_base
from fedbench.experiment.checkpointing import Saving
from fedbench.experiment.description import describe
from fedbench.experiment.interrupt import undisturbed
from fedbench.experiment.kept_files import Keeper
from fedbench.experiment.references import own_models_of
from fedbench.experiment.result import Result
from fedbench.experiment.saved_model import named_tensors
from fedbench.experiment.setup import Problem
from fedbench.experiment.summary import (
    mixed_devices,
    near_chance,
    never_accepted,
    privacy_warning,
    summarise,
    waiting,
)
from fedbench.planning.deadlines import DroppedClients
from fedbench.protocol.layout import Vector, model_digest
from fedbench.records.observers import ALONE, Membership, Observer
from fedbench.records.reader import CLIENTS, SUMMARY, recorded_drops
from fedbench.records.run_directory import MODEL, TABLES, RunDirectory
from fedbench.tracking.run import MlflowTracker
from fedbench.tracking.sending_process import SendingProcess
from fedbench.training.metrics import EvaluationMetrics
from fedbench.training.scores import Scores


class ExperimentLoop:
    """Runs the rounds of one problem and tells everyone who should know. Make one with `create` or `reopen`."""

    def __init__(
        self,
        problem: Problem,
        directory: RunDirectory,
        saving: Saving,
        observers: Sequence[Observer],
        key: str,
        member: Membership = ALONE,
        process: SendingProcess | None = None,
    ) -> None:
        """Args:
        saving: the run's checkpoints.
        observers: told of every round, besides the run directory and MLflow.
        key: identifies the run's recording in MLflow.
        member: what the run is part of.
        process: talks to MLflow; None: a thread does.
        """
        config = problem.config
        self._problem = problem
        self._directory = directory
        self._saving = saving
        self._keeper = Keeper(problem, directory)
        self._label = member.label
        self._tracker: MlflowTracker | None = None
        if config.tracking.enabled:
            tracking = config.tracking
            self._tracker = MlflowTracker(
                tracking.mlflow_uri,
                tracking.experiment,
                {**member.tags, **tracking.tags},
                member.run_name,
                parent_run_id=member.parent_run_id,
                key=key,
                judge=member.judge,
                process=process,
                history=directory.history,
            )
        self._others: list[Observer] = [*([self._tracker] if self._tracker else []), *observers]
        self._observers: list[Observer] = [directory, *self._others]
        self._restored: Checkpoint | None = None
        self._told = -1
        self._full = Costs()
        self._earlier_seconds = 0.0
        self._notes: list[str] = []
        self._last_scores: Scores | None = None
        self._devices: tuple[DeviceRecord, ...] = ()
        self._drops = DroppedClients(config.participation.round_deadline)
        if config.participation.replay is not None:
            self._drops.decided |= recorded_drops(config.participation.replay)

    @classmethod
    def create(
        cls,
        problem: Problem,
        observers: Sequence[Observer],
        member: Membership = ALONE,
        process: SendingProcess | None = None,
    ) -> "ExperimentLoop":
        """A new run; arguments as for the class.

        Raises:
            ConfigError: the run directory is not empty, or cannot be made.
        """
        config = problem.config
        directory = RunDirectory.create(config.name, config.seed, config.output.directory)
        saving = Saving(directory, config)
        key = uuid.uuid4().hex
        saving.remember(key)
        return cls(problem, directory, saving, observers, key, member, process)

    @classmethod
    def reopen(
        cls,
        problem: Problem,
        path: Path,
        observers: Sequence[Observer],
        member: Membership = ALONE,
        process: SendingProcess | None = None,
        *,
        has_summary: bool = True,
    ) -> "ExperimentLoop":
        """A run that goes on from its last checkpoint, or from its start if there is none.

        Args:
            has_summary: whether the run's `summary.json` is there, whole and its own.

        Raises:
            FedbenchError: the directory is not a run's, or another process writes there.
        """
        saving, newest = Saving.reopen(path, problem.config)
        try:
            check_base(path, problem, newest)
            next_round = newest.next_round if newest else 0
            directory = RunDirectory.reopen(path, next_round, newest.directory if newest else None)
            drops, notes = _recorded_drops(path, newest), _keep_what_was_there(directory, next_round, has_summary)
        except BaseException:
            saving.release()
            raise
        saving.attach(directory)
        loop = cls(problem, directory, saving, observers, saving.key, member, process)
        history = directory.history()
        if loop._tracker is not None:
            loop._tracker.resumed(history)
        loop._drops.decided |= drops
        loop._restored = newest
        loop._told = next_round - 1
        loop._earlier_seconds = float(sum(history.column("wall_seconds").to_pylist()))
        loop._notes += notes
        return loop

    def record(self, executor: Executor, should_stop: Callable[[], bool]) -> Result:
        """Run to the end, an interrupt or a failure; record whichever it was.

        Raises:
            FedbenchError: the run could not go on.
        """
        began = time.perf_counter()
        history = self._directory.history()
        sent = sum(sum(history.column(name).to_pylist()) for name in ("uplink_bytes", "downlink_bytes"))
        description = replace(describe(self._problem, self._directory.path), sent_bytes=sent, label=self._label)
        for observer in self._observers:
            observer.run_started(description)
        try:
            stopped, (vector, statistics) = self._run_rounds(executor, should_stop)
            check_model(vector, statistics, remedy(self._problem.config.method))
            peaks = executor.peak_memory()
            self._directory.write_model(named_tensors(self._problem, vector, statistics))
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            summary = self._summarise("interrupted" if interrupted else "failed", began)
            summary["error"] = str(error) if isinstance(error, FedbenchError) else f"{type(error).__name__}: {error}"
            try:
                with undisturbed():
                    self._finish(summary)
            except RunError as second:  # says less than what came first
                error.add_note(str(second))
            # What happened to the cluster need not happen again.
            if interrupted or isinstance(error, LostActor | HeadGone):
                error.add_note(f"go on with: fedbench resume {self._directory.path}")
            raise
        finally:
            self._saving.release()
        with undisturbed():
            summary = self._summarise("interrupted" if stopped else "finished", began)
            summary["model_sha256"] = model_digest(vector, statistics)
            summary["peak_actor_bytes"] = max(peaks, default=None)
            summary["devices"] = [asdict(device) for device in self._devices]
            self._finish(summary)
        return Result(
            summary=summary,
            history=self._directory.history(),
            directory=self._directory.path,
            warnings=self._warnings(summary),
            ui_command=self._tracker.ui_command() if self._tracker else None,
        )

    def _run_rounds(self, executor: Executor, should_stop: Callable[[], bool]) -> tuple[bool, tuple[Vector, Vector]]:
        """(whether it was stopped before the end, the model). What a lost actor takes with it is done again."""
        checkpoint, losses, begun_before = self._restored, 0, False
        while True:
            try:
                if begun_before:
                    executor.rebuild()
                begun_before = True
                return self._go_on(executor, should_stop, checkpoint)
            except UnusableCheckpoint as error:
                assert checkpoint is not None
                self._saving.refuse(checkpoint, str(error))
                checkpoint = self._saving.latest()
                self._saving.check_usable(checkpoint)
            except LostActor as error:
                losses += 1
                if losses > (most := self._problem.config.runtime.max_retries):
                    raise LostActor(f"{error}; runtime.max_retries={most} is used up") from error
                checkpoint = self._saving.latest()
                if isinstance(error, HangingClients):
                    self._drops.leave_out_hanging(error.round_index, error.clients)
                went_on = checkpoint.next_round if checkpoint else 0
                self._notes.append(f"{error}; went on from round {went_on + 1}")
            self._directory.rewind(checkpoint.next_round if checkpoint else 0)

    def _go_on(
        self, executor: Executor, should_stop: Callable[[], bool], checkpoint: Checkpoint | None
    ) -> tuple[bool, tuple[Vector, Vector]]:
        course = self._course(executor)
        self._devices = tuple(dict.fromkeys([*self._devices, *executor.devices()]))
        self._full = Costs()
        if checkpoint is not None:
            self._take_up(checkpoint, executor, course)
        self._take_up_kept(checkpoint)
        last, done = self._problem.rounds, len(self._directory.history())
        every = self._problem.config.evaluation.every

        def snapshot() -> Tree:
            state = {"executor": executor.state(), "course": course.state(), "full": self._full}
            return state | {"kept": dict(self._directory.kept.sums), **base_entries(self._problem)}

        model: tuple[Vector, Vector] | None = None
        self._keeper.keep_model(done, executor.model)
        for finished in course.rounds(every, should_stop):
            done += 1
            if done == last:  # fetched before the round counts as done: what befalls the cluster later is no loss
                model = executor.model()
            self._keeper.keep_messages(finished.record.round, finished.kept)
            self._keeper.keep_model(done, executor.model, model)
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
                self._last_scores = course.scores()  # not a row: the run that goes on has none there
        return done < last, model or executor.model()

    def _take_up(self, checkpoint: Checkpoint, executor: Executor, course: RoundLoop | ArrivalLoop) -> None:
        """Bring a new executor and loop to where the checkpoint was written.

        Raises:
            UnusableCheckpoint: its state is not one of this run.
        """
        try:
            executor.restore(checkpoint.state["executor"])
            course.restore(checkpoint.state["course"])
            self._full = checkpoint.state["full"]
            if course.next_round != checkpoint.next_round or not isinstance(self._full, Costs):
                raise ValueError(f"it stands before round {course.next_round + 1}")
        except (LostActor, HeadGone):
            raise
        except Exception as error:  # whatever a state of another shape makes its owners raise
            lines = str(error).strip().splitlines()  # of an actor's exception, the last one says what it was
            reason = " ".join(lines[-1].split())[:200] if lines else type(error).__name__
            raise UnusableCheckpoint(f"its state is not one of this run: {reason}") from error

    def _take_up_kept(self, checkpoint: Checkpoint | None) -> None:
        """Bring what is kept for later analysis to where the checkpoint was written; a note says what is lost of it."""
        sums = checkpoint.state.get("kept", {}) if checkpoint else {}
        missing, changed = self._directory.kept.restore(sums)
        folder = self._directory.set_aside(changed)
        if missing:
            self._notes.append(f"{', '.join(missing)}: missing; a model or message that was kept cannot be had again")
        if changed:
            self._notes.append(f"{', '.join(changed)}: not as the run wrote it; what was there is in {folder}")

    def _take(self, finished: FinishedRound) -> None:
        """Keep a round, and tell of it, if it is not one that was done before and is done again."""
        self._full += finished.full or Costs()
        self._notes += [remark for remark in dict.fromkeys(finished.remarks) if remark not in self._notes]
        self._directory.arrivals_finished(finished.arrivals)
        self._directory.round_measured(finished.measured)
        self._directory.round_finished(finished.record, finished.clients)
        if finished.record.round <= self._told:
            return
        self._told = finished.record.round
        for observer in self._others:
            observer.round_finished(finished.record, finished.clients)

    def _course(self, executor: Executor) -> RoundLoop | ArrivalLoop:
        problem, config = self._problem, self._problem.config
        spec, metrics = problem.spec, None
        if spec.metrics:
            metrics = EvaluationMetrics(spec.metrics, spec.task.classes, task=spec.task.target)
        if isinstance(executor, ArrivalExecutor):
            assert problem.arrivals is not None
            clock, tolerated = make_clock(config, executor.ready), config.runtime.max_failed_clients
            return ArrivalLoop(problem.arrivals, executor, clock, problem.costs, tolerated, metrics)
        assert isinstance(executor, RoundExecutor)
        return RoundLoop(
            executor,
            problem.costs,
            rounds=problem.rounds,
            evaluate_clients=config.evaluation.per_client,
            drops=self._drops,
            remedy=remedy(config.method),
            records_divergence=config.analysis.divergence,
            probing=problem.spec.probing,
            attackers=problem.spec.attackers,
            client_scoring=problem.spec.client_scoring,
            own_models_of=own_models_of(config, len(problem.federation.sizes)),
            metrics=metrics,
            virtual=None if problem.world is None else VirtualRounds(problem.world, problem.costs, problem.cohort_size),
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

    def _summarise(self, status: str, began: float) -> dict[str, Any]:
        return summarise(
            self._problem,
            self._directory,
            status=status,
            seconds=self._earlier_seconds + time.perf_counter() - began,
            full=self._full,
            last_scores=self._last_scores,
        )

    def _warnings(self, summary: dict[str, Any]) -> tuple[str, ...]:
        tracker = self._tracker.warning if self._tracker else None
        recorded = [
            *self._problem.remarks,
            *mixed_devices(self._devices),
            *self._saving.refused,
            *self._notes,
            self._directory.warning,
            self._saving.warning,
            tracker,
        ]
        learned = [
            *near_chance(self._problem.federation.data, summary),
            *never_accepted(self._directory.work(), summary),
            *privacy_warning(summary),
            *waiting(summary),
        ]
        return tuple(warning for warning in [*recorded, *learned] if warning)


def _recorded_drops(path: Path, newest: Checkpoint | None) -> dict[int, frozenset[int]]:
    """Who was dropped in which round before the run was broken off, by its table or else by the checkpoint's copy."""
    try:
        return dict(recorded_drops(path / CLIENTS))
    except DataError:
        return dict(recorded_drops(newest.directory / CLIENTS)) if newest else {}


def _keep_what_was_there(directory: RunDirectory, next_round: int, has_summary: bool) -> list[str]:
    """Set aside what the run will write anew and what cannot be had again; one line on it for each cause.

    These are tables that differ from the checkpoint's, folders in place of files, and all that was recorded where there
    is no checkpoint, or no summary to say that the run had not ended.
    """
    directory.set_aside(directory.folders_in_place_of_files())
    if not has_summary:
        folder = directory.set_aside([SUMMARY, *TABLES, MODEL])
        kept = f"; what was there is in {folder}" if folder else ""
        return [f"{SUMMARY} was missing, damaged or another run's; written anew from the checkpoint{kept}"]
    if next_round:
        names = directory.differing_tables(next_round)
        folder = directory.set_aside(names)
        differ = f"{', '.join(names)}: not what the checkpoint was written with; written anew from it"
        return [f"{differ}; what was there is in {folder}" if folder else differ] if names else []
    if directory.rounds_on_disk() == 0:
        return []
    folder = directory.set_aside([*TABLES, MODEL])
    return [f"there is no checkpoint: ran again from the first round; what was recorded before is in {folder}"]
