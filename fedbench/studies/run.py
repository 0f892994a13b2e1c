"""Running a study: trials are asked for, run beside each other, and told, until the budget is used up."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import optuna
from optuna.trial import FrozenTrial

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError, HeadGone, RunError
from fedbench.experiment.interrupt import stop_signal, undisturbed
from fedbench.records.headline import ACCURACY
from fedbench.records.run_directory import runs_root
from fedbench.studies.file import StudyFile
from fedbench.studies.local_slot import LocalSlot, runs_here
from fedbench.studies.metrics import HEADLINES
from fedbench.studies.results import (
    DIGESTS,
    DIRECTORIES,
    FIGURES,
    METRICS,
    TRIALS,
    best_trials,
    draw_figures,
    remarks_on_choice,
    write_best,
    write_trials,
)
from fedbench.studies.samplers import BOUNDS, is_grid, make_pruner, make_sampler
from fedbench.studies.shared_study import FLOPS, KEY, REASON, SharedStudy, finished, open_study
from fedbench.studies.storage import close_storage, is_storage_failure, open_storage, reason_of
from fedbench.studies.trial_runner import Assignment, TrialOutcome
from fedbench.studies.trial_slots import TrialSlots
from fedbench.system.home import expanded_address
from fedbench.tracking.parent_run import ParentRun

if TYPE_CHECKING:
    import pandas

POLL_SECONDS = 1.0
RECOVER_SECONDS = 15.0
"""Seconds between two searches for trials of processes that are gone."""

SILENT_SECONDS = 60.0
"""Seconds without a finished trial after which a line says how far the running ones are."""

MOST_SHOWN = 6
"""The number of running trials that such a line names."""


class StudyListener(Protocol):
    """Receives the progress of a study."""

    def study_started(self, file: StudyFile, directory: Path, done: int, slots: int) -> None:
        """Called once, before the first trial.

        Args:
            done: the number of trials that earlier starts, or other processes, have finished.
            slots: the number of trials that run at a time.
        """

    def trial_finished(self, trial: FrozenTrial, best: list[FrozenTrial]) -> None:
        """Called after every trial of this process."""

    def note(self, line: str) -> None:
        """Called with a line about something that happened beside the trials."""


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Attributes:
        status: finished | interrupted.
        study: the study in Optuna.
        directory: the directory of the study; storage: where Optuna keeps it, without a password.
        best: the best trial, or the Pareto front.
        best_files: configurations of those, for `fedbench run`.
        warnings: what could not be recorded or drawn.
    """

    status: str
    file: StudyFile = field(repr=False)
    study: optuna.Study = field(repr=False)
    directory: Path
    storage: str
    best: list[FrozenTrial] = field(repr=False)
    best_files: list[Path] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    def frame(self) -> "pandas.DataFrame":
        """The trials, one row each, as in `trials.csv`: state, objectives as `value:NAME`, parameters, metrics, run."""
        import pandas

        return pandas.read_csv(self.directory / TRIALS)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Context in which Optuna logs warnings alone; afterwards it logs as before."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@_quiet_optuna()
def sweep(file: StudyFile, listener: StudyListener) -> StudyResult:
    """Run a study, or go on with it; other processes may work on it at the same time.

    An interrupt (Ctrl-C, SIGTERM) ends it: running trials end at their round and are run again, from their start, when
    the study goes on.

    Raises:
        FedbenchError: bad study or storage, a cluster without room (before any trial), or one of them that was lost.
    """
    directory = (runs_root() / "studies" / file.name).absolute()
    where = expanded_address(file.storage) if file.storage else str(directory / "journal.log")
    config = file.check()
    if not directory.exists():  # a study that is finished can be shown again without its data
        config.data.dataset.check(config.data.root)
    sampler, pruner = make_sampler(file, 0), make_pruner(file)
    storage = open_storage(where)
    try:
        _make_folder(directory)
        shared = SharedStudy(open_study(file, storage, sampler, pruner), storage, trials_at_most(file))
        return _work_on(file, config, shared, directory, where, listener)
    except Exception as error:
        if not is_storage_failure(error):
            raise
        lost = f"storage={without_passwords(where)}: cannot be reached any more ({reason_of(error)})"
        raise RunError(f"{lost}; once it can, the same command goes on with the study") from error
    finally:
        close_storage(storage)


def _make_folder(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be made a directory: {error.strerror}") from None


def _work_on(
    file: StudyFile, config: ExperimentConfig, shared: SharedStudy, directory: Path, where: str, listener: StudyListener
) -> StudyResult:
    study = shared.study
    study.sampler = make_sampler(file, shared.join())
    with stop_signal() as should_stop:
        shared.beat()
        shared.recover()
        if shared.is_done():
            return _conclude(file, study, directory, where, "finished", listener, None)
        config.data.dataset.check(config.data.root)
        listener.note(f"starting the study {file.name}")
        slots = _open_slots(file, where if "://" in where else str(Path(where).absolute()), config)
        try:
            parent = _open_parent(file, config, study)
            try:
                status = Driver(file, shared, slots, directory, parent, listener).run(should_stop)
            except BaseException as error:
                if isinstance(error, HeadGone):
                    error.add_note("go on with the same command")
                with undisturbed():
                    parent.close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
                raise
        finally:
            slots.close()
            shared.leave()
    return _conclude(file, study, directory, where, status, listener, parent)


def _open_slots(file: StudyFile, storage: str, config: ExperimentConfig) -> TrialSlots:
    """Places for trials on Ray, or in this process where Ray would have nothing to do."""
    most = trials_at_most(file)
    if runs_here(file, config, most):
        return LocalSlot(file, storage)
    from fedbench.studies.slots import RaySlots

    return RaySlots(file, storage, config, most)


def trials_at_most(file: StudyFile) -> int | None:
    """The budget of trials: that of the study, or of a grid the number of its combinations, if that is less."""
    asked = file.budget.trials
    if not is_grid(file):
        return asked
    there = file.drawn_from.size()
    assert there is not None
    return there if asked is None else min(asked, there)


class Driver:
    """Runs the trials of one process: fills free slots with trials, and tells the study their outcomes."""

    def __init__(
        self,
        file: StudyFile,
        shared: SharedStudy,
        slots: TrialSlots,
        directory: Path,
        parent: ParentRun,
        listener: StudyListener,
    ) -> None:
        self._file = file
        self._shared = shared
        self._slots = slots
        self._directory = directory
        self._parent = parent
        self._listener = listener
        self._began = time.monotonic()
        self._next_recovery = time.monotonic() + RECOVER_SECONDS
        self._combinations = list(file.drawn_from.combinations()) if is_grid(file) else None
        self._drawn: dict[int, dict[str, Any]] = {}
        self._last_said = time.monotonic()

    def run(self, should_stop: Callable[[], bool]) -> str:
        """Run until the budget is used up, or an interrupt; returns finished | interrupted."""
        done = sum(1 for _ in finished(self._shared.trials()))
        self._listener.study_started(self._file, self._directory, done, self._slots.count)
        stopping = waiting = False
        while True:
            self._shared.beat()
            self._recover_now_and_then()
            if should_stop() and not stopping:
                stopping = True
                self._slots.stop()
                self._listener.note("interrupted: running trials end at their round")
            if not stopping:
                self._fill()
            if not self._slots.running():
                if stopping:
                    return "interrupted"
                if self._spent() or self._shared.is_done():
                    return "finished"
                if not waiting and not self._shared.has_room():
                    waiting = True
                    self._listener.note("waiting for trials of other processes")
            for number, outcome in self._slots.wait(POLL_SECONDS):
                self._tell(number, outcome)
            self._say_where()
            if not self._slots.running() and not self._shared.has_room():
                time.sleep(POLL_SECONDS)

    def _say_where(self) -> None:
        if time.monotonic() - self._last_said < SILENT_SECONDS:
            return
        running = [f"trial {number} {words}" for number, words in self._slots.where().items()]
        if running:
            more = f"; and {len(running) - MOST_SHOWN} more" if len(running) > MOST_SHOWN else ""
            self._listener.note(f"running: {'; '.join(running[:MOST_SHOWN])}{more}")
        self._last_said = time.monotonic()

    def _recover_now_and_then(self) -> None:
        if time.monotonic() < self._next_recovery:
            return
        self._next_recovery = time.monotonic() + RECOVER_SECONDS
        if count := self._shared.recover():
            self._listener.note(f"{count} trial{'' if count == 1 else 's'} of a process that is gone: run again")

    def _spent(self) -> bool:
        """Whether the budget of hours or of FLOPs is used up, so that no trial is begun any more."""
        budget = self._file.budget
        if budget.hours is not None and time.monotonic() - self._began > budget.hours * 3600:
            return True
        if budget.tflop is None:
            return False
        spent = sum(float(trial.user_attrs.get(FLOPS, 0.0)) for trial in self._shared.trials())
        return spent >= budget.tflop * 1e12

    def _fill(self) -> None:
        for slot in self._slots.idle():
            while not self._spent() and self._shared.has_room():
                if self._begin(slot):
                    break

    def _begin(self, slot: Any) -> bool:
        """Whether the slot is busy now, or nothing is left to draw for it."""
        trial = self._shared.ask(self._combinations)
        if trial is None:
            return self._combinations is not None or not self._shared.has_room()
        try:
            drawn = self._file.drawn_from.draw(trial)
            if self._combinations is not None and self._shared.is_repeated(trial):
                self._shared.drop(trial)
                return False
        except ValueError as error:  # put into the queue by hand, and not of this space
            self._shared.fail(trial.number, f"not of this space: {' '.join(str(error).split())}")
            return False
        self._drawn[trial.number] = drawn
        directory = str(self._directory)
        self._slots.begin(slot, Assignment(trial.number, trial._trial_id, drawn, directory, self._parent.run_id))
        return True

    def _tell(self, number: int, outcome: TrialOutcome) -> None:
        bounds = self._bounds(outcome)
        notes = {
            METRICS: outcome.metrics,
            FLOPS: outcome.flops,
            DIRECTORIES: list(outcome.directories),
            DIGESTS: list(outcome.digests),
        }
        self._shared.note(number, notes | ({BOUNDS: bounds} if bounds is not None else {}))
        if outcome.state == "interrupted":
            self._shared.interrupt(number)
        elif outcome.state == "pruned" and bounds is not None:
            self._shared.prune(number)
        elif outcome.state == "complete" and bounds is not None:
            self._shared.complete(number, [outcome.metrics[one.metric] for one in self._file.objectives])
        else:
            self._shared.fail(number, outcome.reason or "a constraint could not be measured")
        trials = self._shared.trials()
        best = best_trials(self._shared.study)
        self._listener.trial_finished(trials[number], best)
        self._last_said = time.monotonic()
        self._log_best(best, sum(1 for _ in finished(trials)))

    def _bounds(self, outcome: TrialOutcome) -> list[float] | None:
        """Return by how much each constraint is broken (0 or less: kept); None if one was not measured."""
        if any(one.metric not in outcome.metrics for one in self._file.constraints):
            return None
        return [one.violation(outcome.metrics[one.metric]) for one in self._file.constraints]

    def _log_best(self, best: list[FrozenTrial], done: int) -> None:
        values = {"study/trials": float(done)}
        for place, one in enumerate(self._file.objectives):
            reached = [trial.values[place] for trial in best]
            if reached:
                values[f"best/{one.metric}"] = max(reached) if one.direction == "maximize" else min(reached)
        if len(self._file.objectives) > 1:
            values["study/pareto_trials"] = float(len(best))
        self._parent.log(values, done)


def _open_parent(file: StudyFile, config: ExperimentConfig, study: optuna.Study) -> ParentRun:
    """Open the MLflow run of the study, which all its processes share."""
    tracking = config.tracking
    headline = HEADLINES.get(file.objectives[0].metric, ACCURACY)
    parent = ParentRun(enabled=tracking.enabled, headline=headline)
    sought = ", ".join(f"{one.direction} {one.metric}" for one in file.objectives)
    space = "\n".join(f"- `{name}`: {entry.type}" for name, entry in file.space.items())
    base = file.base if isinstance(file.base, str) else "a configuration of its own"
    note = f"**Study {file.name}**: {sought}\n\nBase: {base}. Sampler: {file.sampler.name}. What varies:\n\n{space}"
    tags = {**tracking.tags, "study": file.name}
    parent.open(file.name, tracking.experiment, tracking.mlflow_uri, tags, note, study.user_attrs[KEY])
    return parent


def _conclude(
    file: StudyFile,
    study: optuna.Study,
    directory: Path,
    where: str,
    status: str,
    listener: StudyListener,
    parent: ParentRun | None,
) -> StudyResult:
    """Write what the study leaves; also where nothing was left to run."""
    try:
        best_files = write_best(study, file, directory)
        write_trials(study, file, directory)
    except OSError as error:
        if parent is not None:
            parent.close("failed")
        raise RunError(f"{directory} could not be written: {error}") from error
    warnings = [*remarks_on_choice(study, file), *draw_figures(study, file, directory)]
    if parent is not None:
        for path in (*best_files, directory / TRIALS):
            parent.artifact(path)
        for path in sorted((directory / FIGURES).glob("*.png")):
            parent.artifact(path, FIGURES)
        parent.close(status)
        warnings += [parent.warning] if parent.warning else []
    shown = without_passwords(where)
    return StudyResult(status, file, study, directory, shown, best_trials(study), best_files, tuple(warnings))


def reasons(study: optuna.Study) -> dict[int, str]:
    """Map the numbers of failed trials to the reasons."""
    return {
        trial.number: str(trial.user_attrs[REASON])
        for trial in finished(study.get_trials(deepcopy=False))
        if REASON in trial.user_attrs
    }
