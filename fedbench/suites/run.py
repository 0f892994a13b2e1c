"""A suite run to its end: what is recorded is not run again, what was broken off goes on, what fails fails alone."""

import shlex
import traceback
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench.config.identity import is_local
from fedbench.config.sections import OutputSection
from fedbench.engine.on_ray.session import ray_session
from fedbench.errors import ClientFailure, ConfigError, DataError, FedbenchError, HeadGone
from fedbench.experiment.interrupt import stop_signal, undisturbed
from fedbench.experiment.result import Result
from fedbench.experiment.run import resume as resume_run
from fedbench.experiment.run import run as run_experiment
from fedbench.experiment.run import where_it_runs
from fedbench.records.headline import DEFAULT_TASK
from fedbench.records.observers import Membership, Observer
from fedbench.records.recorded_analysis import FOLDER as ANALYSES
from fedbench.records.run_directory import runs_root
from fedbench.records.run_lock import RunLock
from fedbench.report.analyses import analyses_of
from fedbench.report.compare import compare, load
from fedbench.report.content import make_report
from fedbench.report.files import PAGE, write_report
from fedbench.suites.analyses import perform_analyses
from fedbench.suites.analysis_outcome import AnalysisOutcome
from fedbench.suites.data_places import require_data
from fedbench.suites.earlier_runs import Recorded, set_aside
from fedbench.suites.files import TABLE, write_outputs
from fedbench.suites.plan import Plan, Run, slug
from fedbench.suites.present_data import PresentData
from fedbench.suites.progress import SuiteListener
from fedbench.suites.results import Outcome, Outcomes
from fedbench.suites.task_measures import require_measures
from fedbench.suites.whole_table import whole_and_recorded
from fedbench.tables import render
from fedbench.tasks.kinds import TASKS
from fedbench.tracking.analysis_upload import analysis_metrics
from fedbench.tracking.parent_run import ParentRun
from fedbench.tracking.recording_key import keep_key, read_key

if TYPE_CHECKING:
    import pyarrow as pa

    from fedbench.engine.on_ray.warm_actors import WarmActors

REPORT = "report"
"""The folder of the report on a suite's runs, below the suite's."""

STATE = "suite.json"
"""What a suite's folder keeps between commands: the key of its MLflow run."""


def suite_folder(plan: Plan) -> Path:
    """The folder of a suite's runs and tables: `suites/NAME` below the runs, another one for each scale."""
    name = plan.name if plan.scale == 1 else f"{plan.name}-scaled-{plan.scale:g}"
    return (runs_root() / "suites" / slug(name)).absolute()


def recorded_for(plan: Plan) -> dict[str, Recorded]:
    """The runs of a plan that are recorded in its own folder, or finished in another suite's."""
    _, recorded = whole_and_recorded(plan, suite_folder(plan))
    return {digest: run for digest, run in recorded.items() if digest in plan.runs}


def run_suite(plan: Plan, listener: SuiteListener, *, force: bool = False) -> Outcomes:
    """Run what is not recorded yet, one run after the other, and write the table after each.

    The files have the whole table, as far as it is recorded, where the plan is a selection; what is returned has not.

    An interrupt ends the running run at the end of its round, with a checkpoint, and the suite with it.

    Args:
        listener: told of every run, its rounds and of warnings.
        force: run everything again, also what is recorded; earlier runs are set aside in `.replaced`.

    Raises:
        ConfigError: another process is at work on the suite, `data.root` is not set for data that need it, or a column
            shows a figure that none of its runs has, of another task.
        DataError: the data of none of the runs are there.
        RunError: there is no Ray to run on.
    """
    folder = suite_folder(plan)
    require_data(plan, lambda: () if force else {key for key, run in recorded_for(plan).items() if run.finished})
    require_measures(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made a directory: {error.strerror}") from None
    with RunLock(folder, "suite"):
        if force:
            try:
                set_aside(folder, plan.runs)
            except OSError as error:
                raise ConfigError(f"--force: {error.filename} cannot be moved: {error.strerror}") from None
        return _Suite(plan, folder, listener, force).run()


class _Suite:
    """The work of `run_suite`."""

    def __init__(self, plan: Plan, folder: Path, listener: SuiteListener, force: bool) -> None:
        self._plan, self._folder, self._listener = plan, folder, listener
        self._outcomes = Outcomes(plan)
        whole, recorded = whole_and_recorded(plan, folder)
        # Other suites may have recorded the same runs.
        self._recorded = {digest: run for digest, run in recorded.items() if not (force and digest in plan.runs)}
        self._whole = Outcomes(whole)
        self._broken_data: dict[str, str] = {}
        first = next(iter(plan.runs.values())).config
        self._runtime, self._tracking = first.runtime, first.tracking
        headline = TASKS[first.task or DEFAULT_TASK].headline
        self._parent = ParentRun(enabled=self._tracking.enabled, headline=headline)
        self._force = force
        self._steps = 0
        self._warm: WarmActors | None = None

    def run(self) -> Outcomes:
        """Run the suite to its end."""
        self._take_recorded()
        with stop_signal() as should_stop:
            try:
                self._run_all(should_stop)
            except KeyboardInterrupt:  # the second one
                self._listener.say("interrupted at once")
            except Exception:
                with undisturbed():
                    self._parent.close("failed")
                raise
        with undisturbed():
            self._write()
            self._report()
        self._analyse()
        with undisturbed():
            self._parent.artifacts(self._folder / TABLE)
            self._parent.describe(self._note())
            self._parent.close(self._outcomes.status)
        if self._parent.warning:
            self._listener.warn(self._parent.warning)
        return self._outcomes

    def _run_all(self, should_stop: Callable[[], bool]) -> None:
        known = set(self._outcomes.by_digest)
        with ExitStack() as session:
            if to_do := len(self._plan.runs) - len(known):
                runs = f"{to_do} of {len(self._plan.runs)} runs"
                self._listener.say(f"starting {self._plan.name}: {runs}, {where_it_runs(self._runtime)}")
                self._open_parent()
                self._warm = session.enter_context(ray_session(self._runtime))
            for number, digest in enumerate(self._plan.runs, 1):
                if digest not in known and should_stop():
                    return
                self._listener.begin(number, self._plan.runs[digest].title)
                if digest not in known:
                    self._record(self._plan.runs[digest])
                self._listener.end(self._outcomes.by_digest[digest])

    def _analyse(self) -> None:
        """Perform the analyses over the finished runs, and write the table again with what they say of statements."""
        if not self._whole.plan.analyses or self._outcomes.missing:  # missing: the user has interrupted
            return
        analyses: list[AnalysisOutcome] = []
        try:
            for analysis in perform_analyses(self._whole, self._folder, self._listener.say, force=self._force):
                analyses.append(analysis)
                if analysis.reason:
                    self._listener.warn(f"analysis {analysis.planned.part.name}: {analysis.reason}")
        except KeyboardInterrupt:
            self._outcomes.broken_off = self._whole.broken_off = True
            self._listener.say("interrupted among the analyses")
        with undisturbed():
            self._outcomes.analyses = self._whole.analyses = tuple(analyses)
            self._write()
            self._report()
            if self._parent.run_id is None and any(analysis.is_new for analysis in analyses):
                self._open_parent()
            self._parent.artifacts(self._folder / ANALYSES, below=ANALYSES)
            for analysis in analyses:
                for recorded in analysis.by_seed.values():
                    self._parent.log(analysis_metrics(recorded), step=self._steps)

    def _take_recorded(self) -> None:
        present = PresentData()
        for digest, recorded in self._recorded.items():
            if recorded.finished:
                config = self._whole.plan.runs[digest].config
                differences = (recorded.other_versions, present.difference(config, recorded.directory))
                other = ", ".join(filter(None, differences))
                self._keep(
                    digest,
                    Outcome("finished", recorded.directory, recorded.summary, reused=True, other_versions=other),
                )
                if other and digest in self._plan.runs:
                    self._listener.warn(f"{recorded.directory} was recorded with {other}; --force has it run again")

    def _keep(self, digest: str, outcome: Outcome, history: "pa.Table | None" = None) -> None:
        for outcomes in (self._outcomes, self._whole):
            if digest in outcomes.plan.runs:
                outcomes.add(digest, outcome, history)

    def _record(self, run: Run) -> None:
        """Run one run; its failure is kept as its outcome."""
        data = repr(run.config.data.dataset)
        if reason := self._broken_data.get(data):
            self._keep(run.digest, Outcome("failed", reason=reason))
            return
        try:
            result = self._start(run, [self._listener])
        except FedbenchError as error:
            self._let_actors_go()
            if isinstance(error, ClientFailure):
                self._listener.show_traceback(error.traceback or "".join(traceback.format_exception(error.__cause__)))
            if isinstance(error, DataError):  # the others on this data would fail as it did
                self._broken_data[data] = str(error)
            self._keep(run.digest, Outcome("failed", self._found_directory(run), reason=str(error)))
            if isinstance(error, HeadGone):  # the runs that follow would fail as it did
                lost = HeadGone(str(error))
                lost.add_note("go on with the same command")
                raise lost from None
        except Exception as error:  # a part of one's own may raise anything; the others can still be run
            self._let_actors_go()
            self._listener.show_traceback(traceback.format_exc())
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._keep(run.digest, Outcome("failed", self._found_directory(run), reason=reason))
        else:
            for warning in result.warnings:
                self._listener.warn(f"{run.title}: {warning}")
            status = str(result.summary["status"])
            self._keep(run.digest, Outcome(status, result.directory, result.summary), result.history)
        self._steps += 1
        self._write()
        self._parent.log(self._whole.means() | {"runs": float(self._steps)}, step=self._steps)

    def _start(self, run: Run, observers: list[Observer]) -> Result:
        """Begin a run, or go on with a recorded one."""
        member = self._member(run)
        if run.digest in self._recorded:
            where = [text for text in self._plan.overrides if is_local(text)]
            return resume_run(self._recorded[run.digest].directory, where, observers, member, warm=self._warm)
        output = OutputSection(directory=self._free_directory(run))
        return run_experiment(run.config.model_copy(update={"output": output}), observers, member, warm=self._warm)

    def _let_actors_go(self) -> None:
        """End the warm actors: a failed run may have left them in any state."""
        if self._warm is not None:
            self._warm.close()

    def _free_directory(self, run: Run) -> Path:
        """A new directory for a run; a torn one of an earlier attempt is left as it is."""
        attempt, directory = 1, self._folder / run.directory_name
        while directory.exists():
            attempt += 1
            directory = self._folder / f"{run.directory_name}-{attempt}"
        return directory

    def _found_directory(self, run: Run) -> Path | None:
        summaries = sorted(self._folder.glob(f"{run.directory_name}*/summary.json"))
        return summaries[-1].parent if summaries else None

    def _open_parent(self) -> None:
        tags = {"suite": self._plan.name, **self._tracking.tags}
        if self._plan.label:
            tags["scale"] = self._plan.label
        tracking = self._tracking
        self._parent.open(
            self._plan.title, tracking.experiment, tracking.mlflow_uri, tags, self._note(), self._mlflow_key()
        )
        if self._parent.warning:
            self._listener.warn(self._parent.warning)

    def _member(self, run: Run) -> Membership:
        tags = {"suite": self._plan.name, "row": run.row}
        if self._plan.label:
            tags["scale"] = self._plan.label
        return Membership(self._parent.run_id, self._name(run), tags, label=run.label)

    def _name(self, run: Run) -> str:
        """The MLflow name of a run, the scale last: charts show first letters only, which must tell the runs apart."""
        scale = self._plan.label
        title = f"{run.label.removesuffix(f' {scale}')} seed {run.config.seed}"
        return f"{title} ({scale})" if scale else title

    def _note(self) -> str:
        plan = self._whole.plan
        lines = [f"**{plan.file.title}**", f"Suite `{plan.name}`{f', {plan.label}' if plan.label else ''}: "]
        lines[1] += f"{len(plan.runs)} runs, seeds {', '.join(map(str, plan.seeds))}. Files: `{self._folder}`"
        if self._whole.by_digest:
            if (self._folder / REPORT / PAGE).exists():
                lines.append("Among the artifacts: the table, and `report.html`, the runs side by side, with charts.")
            lines.append(render.markdown(self._whole.table()))
        else:
            lines += plan.file.notes
        return "\n\n".join(lines)

    def _mlflow_key(self) -> str:
        """The key of the suite's MLflow run; made and kept at the suite's first start."""
        file = self._folder / STATE
        if (key := read_key(file)) is None:
            key = uuid.uuid4().hex
            keep_key(file, key)
        return key

    def _write(self) -> None:
        try:
            write_outputs(self._whole, self._folder)
        except OSError as error:
            self._listener.warn(f"the table could not be written: {error}")

    def _report(self) -> None:
        """The finished runs side by side, with the charts that a table does not have; none without such a run."""
        finished = (outcome.directory for outcome in self._whole.by_digest.values() if outcome.finished)
        directories = [directory for directory in finished if directory is not None]
        try:
            titles = {digest: run.label for digest, run in self._whole.plan.runs.items()}
            report = make_report(compare(load(directories), titles=titles), command=self._command())
            banner = self._whole.table().banner
            intro = (banner, *report.intro) if banner else report.intro
            analyses = analyses_of([self._folder, *directories])
            report = replace(report, title=self._plan.file.title, intro=intro, analyses=analyses)
            write_report(report, self._folder / REPORT)
        except DataError:  # none of them can be compared
            return
        except Exception as error:  # the runs and the table are there; what cannot be drawn must not undo them
            self._listener.warn(f"the report could not be written: {' '.join(str(error).split())}")
            return
        self._parent.artifact(self._folder / REPORT / PAGE)

    def _command(self) -> str:
        plan = self._whole.plan
        scale = ["--scale", f"{plan.scale:g}"] if plan.label else []
        seeds = ["--seeds", ",".join(map(str, plan.seeds))]
        return shlex.join(["fedbench", "suite", plan.name, *plan.overrides, *seeds, *scale])
