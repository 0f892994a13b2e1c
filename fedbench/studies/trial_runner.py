"""Who runs trials: a process that stays for the whole study, PyTorch loaded, client actors warm."""

import math
import os
import textwrap
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
import pyarrow as pa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import FedbenchError, RunError
from fedbench.experiment.run import run
from fedbench.records.headline import DEFAULT_TASK, as_recorded, with_task
from fedbench.records.observers import Membership, RunDescription, Verdict
from fedbench.records.schema import ROUND_SCHEMA, ClientRecord, RoundRecord
from fedbench.studies.file import StudyFile
from fedbench.studies.metrics import HEADLINES, lacking, mean, measure
from fedbench.studies.samplers import make_pruner
from fedbench.studies.space import Values, in_words
from fedbench.studies.storage import close_storage, open_storage
from fedbench.tasks.kinds import TASKS, TaskName

if TYPE_CHECKING:
    from fedbench.engine.on_ray.warm_actors import WarmActors

State = Literal["complete", "pruned", "interrupted", "failed"]

PASSED_ON = ("FEDBENCH_", "MLFLOW_", "PG")
"""Environment variables with these beginnings are the command's, wherever Ray started this process.

PG is PostgreSQL's: a password may be there instead of in the storage's URL.
"""

LONGEST_NAME = 120
"""Characters of a run's name, which MLflow shows in one line."""


@dataclass(frozen=True)
class Surroundings:
    """What a process needs to do as the command would: Ray may have started it elsewhere."""

    folder: str
    environment: dict[str, str]

    @classmethod
    def here(cls) -> "Surroundings":
        """The surroundings of this process."""
        passed_on = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        return cls(str(Path.cwd()), passed_on)

    def enter(self) -> None:
        """Make this process like that one."""
        os.chdir(self.folder)
        os.environ.update(self.environment)


@dataclass(frozen=True)
class Assignment:
    """A trial to run.

    Attributes:
        trial_id: in the storage.
        drawn: parameters by name.
        directory: of the study; absolute.
        parent_run_id: the MLflow run of the study, if there is one.
    """

    number: int
    trial_id: int
    drawn: Values
    directory: str
    parent_run_id: str | None


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended.

    Attributes:
        metrics: means over the seeds that were run to their end; of a pruned or interrupted trial, so far.
        flops: client work of all seeds together.
        directories: of its runs; digests: their `model_sha256`.
        reason: why it has no values, one line.
    """

    state: State
    metrics: dict[str, float]
    flops: float
    directories: tuple[str, ...]
    digests: tuple[str, ...]
    reason: str | None


class TrialRunner:
    """Runs one trial at a time; on a cluster an actor whose `stop` may be called meanwhile."""

    def __init__(self, study: StudyFile, storage: str, surroundings: Surroundings) -> None:
        surroundings.enter()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._file = study
        self._storage = storage
        self._opened: BaseStorage | None = None
        self._study: optuna.Study | None = None
        self._warm: WarmActors | None = None
        self._stop = threading.Event()
        self._watch: SeedRun | None = None

    def warm_up(self, config: ExperimentConfig) -> bool:
        """Load what every trial needs, and start client actors; whether there was room for them."""
        import fedbench.experiment.setup  # noqa: F401

        if config.runtime.executor == "inline":
            return True
        try:
            self._warm_actors().lend(config.runtime, config.slots())
        except RunError:
            return False
        return True

    def _warm_actors(self) -> "WarmActors":
        """The client actors, which the next trial takes over."""
        from fedbench.engine.on_ray.warm_actors import WarmActors

        self._warm = self._warm or WarmActors()
        return self._warm

    def _close_actors(self) -> None:
        if self._warm is not None:
            self._warm.close()

    def stop(self) -> None:
        """End the running trial at the end of its round."""
        self._stop.set()

    def where(self) -> str:
        """How far the running trial is, in words."""
        watch = self._watch
        if watch is None:
            return "starting"
        return f"seed {watch.seed} {watch.where}" if len(self._file.seeds) > 1 else watch.where

    def close(self) -> None:
        """Give the client actors' places back, and the storage's connections."""
        self._close_actors()
        if self._opened is not None:
            close_storage(self._opened)

    def run(self, assignment: Assignment) -> TrialOutcome:
        """Run a trial with each seed; whatever goes wrong is an outcome, and leaves nothing half-used behind."""
        done: list[SeedRun] = []
        try:
            for place, seed in enumerate(self._file.seeds):
                if self._stop.is_set():
                    return _outcome("interrupted", done, "interrupted")
                # The first seed alone is compared with other trials: steps of several would be mixed up.
                trial = self._trial(assignment.trial_id) if self._file.pruner and place == 0 else None
                watch = SeedRun(self._file, seed, trial, self._stop)
                done.append(watch)
                self._watch = watch
                self._run_seed(assignment, seed, watch)
                if watch.state != "complete":
                    return _outcome(watch.state, done, "interrupted" if watch.state == "interrupted" else None)
        except Exception as error:
            self._close_actors()
            text = str(error) if isinstance(error, FedbenchError) else f"{type(error).__name__}: {error}"
            return _outcome("failed", done, " ".join(text.split()))
        finally:
            self._watch = None
        metrics = mean([one.metrics for one in done])
        reason = lacking(self._file.metrics(), metrics, self._file.target)
        return _outcome("failed" if reason else "complete", done, reason)

    def _run_seed(self, assignment: Assignment, seed: int, watch: "SeedRun") -> None:
        directory = Path(assignment.directory) / f"trial-{assignment.number:04d}-seed-{seed}"
        values = self._file.concrete(assignment.drawn, seed).to_mapping()
        config = ExperimentConfig.from_mapping(values | {"output": {"directory": str(directory)}})
        name = f"trial {assignment.number}" + (f", seed {seed}" if len(self._file.seeds) > 1 else "")
        name = textwrap.shorten(f"{name}: {in_words(assignment.drawn)}", LONGEST_NAME, placeholder=" ...")
        tags = {"study": self._file.name, "trial": str(assignment.number)}
        member = Membership(assignment.parent_run_id, name, tags, watch.judge)
        warm = self._warm_actors() if config.runtime.executor == "ray" else None
        result = run(config, [watch], member, should_stop=watch.should_stop, warm=warm)
        watch.digest, watch.directory = result.summary["model_sha256"], str(result.directory)

    def _trial(self, trial_id: int) -> optuna.Trial:
        if self._study is None:
            # The trial was drawn elsewhere; here it only reports, and asks the pruner.
            self._opened = open_storage(self._storage)
            self._study = optuna.load_study(
                study_name=self._file.name,
                storage=self._opened,
                sampler=RandomSampler(),
                pruner=make_pruner(self._file),
            )
        return optuna.trial.Trial(self._study, trial_id)


class SeedRun:
    """Follows one run of a trial (an `Observer`), and has it stopped where the pruner says so.

    Attributes:
        state: how it ended.
        metrics: so far, or in the end.
        flops: client work so far.
        seed: of the run; where: how far it is, in words.
        digest, directory: of the finished run.
    """

    def __init__(self, study: StudyFile, seed: int, trial: optuna.Trial | None, stop: threading.Event) -> None:
        """Args:
        trial: to which scores are reported; None: to nobody.
        stop: set when the study is interrupted.
        """
        self._study = study
        self.seed = seed
        self._trial = trial
        self._stop = stop
        self._records: list[dict[str, Any]] = []
        self._prune = self._lost = False
        self.state: State = "failed"
        self.metrics: dict[str, float] = {}
        self.digest = self.directory = ""
        self.where = "starting"
        self._rounds, self._score = 0, ""
        self._task: TaskName = DEFAULT_TASK

    @property
    def flops(self) -> float:
        return float(sum(record["client_flops"] for record in self._records))

    def should_stop(self) -> bool:
        """At the end of each round."""
        return self._prune or self._lost or self._stop.is_set()

    def run_started(self, run: RunDescription) -> None:
        """Note its length and its task."""
        self._rounds, self._task = run.rounds, run.task

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Report the score that is sought, if the round has one; the step is the number of rounds done."""
        self._records.append(vars(record))
        headline = TASKS[self._task].headline
        if (score := record.choosing_score(headline)) is not None:
            self._score = f" {headline.words} {as_recorded(score, headline)}"
        self.where = f"round {record.round + 1}/{self._rounds}{self._score}"
        if self._trial is None or (sought := self._sought(record)) is None:
            return
        try:
            self._trial.report(sought, record.round + 1)
            self._prune = self._prune or self._trial.should_prune()
        except UpdateFinishedTrialError:
            self._lost = True  # this process was taken for dead, and the trial runs elsewhere

    def _sought(self, record: RoundRecord) -> float | None:
        """A round's value of the metric that the objective is of, on the split by which is chosen."""
        headline = HEADLINES.get(self._study.objectives[0].metric)
        value = None if headline is None else record.choosing_score(headline)
        return None if value is None or math.isnan(value) else value

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Nothing more to do; see `judge`."""
        self._conclude(summary)

    def judge(self, summary: Mapping[str, Any]) -> Verdict:
        """For MLflow: Optuna's state of the trial as far as this run decides it, and the objectives."""
        self._conclude(summary)
        wanted = self._study.metrics()
        failed = self.state == "failed" or lacking(wanted, self.metrics, self._study.target) is not None
        state = "FAIL" if failed and self.state != "pruned" else self.state.upper()
        values = {f"objective/{name}": self.metrics[name] for name in wanted if name in self.metrics}
        return Verdict({"state": state}, values if self.state == "complete" else {})

    def _conclude(self, summary: Mapping[str, Any]) -> None:
        status = summary["status"]
        if status == "interrupted":
            self.state = "pruned" if self._prune else "interrupted"
        else:
            self.state = "complete" if status == "finished" else "failed"
        rounds = with_task(pa.Table.from_pylist(self._records, schema=ROUND_SCHEMA), self._task)
        self.metrics = measure(summary, rounds, self._study.target)


def _outcome(state: State, done: Sequence[SeedRun], reason: str | None) -> TrialOutcome:
    return TrialOutcome(
        state=state,
        metrics=mean([one.metrics for one in done if one.metrics]),
        flops=sum(one.flops for one in done),
        directories=tuple(one.directory for one in done if one.directory),
        digests=tuple(one.digest for one in done if one.digest),
        reason=reason,
    )
