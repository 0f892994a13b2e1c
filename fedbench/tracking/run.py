"""Records a run in MLflow, in the background (an `Observer`): parameters, data set, metrics, artifacts, status."""

import shlex
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedbench.accounting.totals import added
from fedbench.config.passwords import without_passwords
from fedbench.records.client_scores import CLIENT_FIGURES, SCORE_FIGURES
from fedbench.records.observers import RunDescription, Verdict
from fedbench.records.schema import DIVERGENCE_FIGURES, PROBE_FIGURES, STEP_FIGURES, ClientRecord, RoundRecord
from fedbench.records.trained_groups import numbered
from fedbench.system.processes import this_process
from fedbench.tracking.mlflow_run import MlflowRun
from fedbench.tracking.pages import NOTE, charts_fragment, name_of_run
from fedbench.tracking.round_metrics import further_metrics
from fedbench.tracking.run_content import (
    ROUND_SECONDS,
    log_dataset,
    log_outcome,
    log_parameters,
    recorded_files,
    skip_what_is_there,
)
from fedbench.tracking.sending_process import SendingProcess
from fedbench.tracking.store import DIRECTORY_TAG, LONGEST_TAG, is_server, now

LOADING_TIMEOUT = 5.0
"""Seconds after a run's end that a process which sends for it has to import mlflow, if it did not get to it before."""

ANSWER_TIMEOUT = 15.0
"""Seconds beyond its own timeouts that such a process has to say what became of the run."""


class MlflowTracker:
    """Records one run in an MLflow store (an `Observer`).

    Its calls only queue; `run_finished` alone waits, a bounded time. Register it behind the `RunDirectory`, whose
    files it stores as artifacts.

    Attributes:
        recording: the run in the store.
        warning: one line on what MLflow lacks and where it is, or None.
    """

    def __init__(
        self,
        mlflow_uri: str | None = None,
        experiment: str = "fedbench",
        tags: Mapping[str, str] | None = None,
        run_name: str | None = None,
        *,
        parent_run_id: str | None = None,
        key: str | None = None,
        judge: Callable[[Mapping[str, Any]], Verdict] | None = None,
        close_timeout: float = 60.0,
        away_timeout: float = 3.0,
        process: SendingProcess | None = None,
        history: Callable[[], pa.Table] | None = None,
        identity: str | None = None,
    ) -> None:
        """Describe the recording; nothing is opened before `run_started`.

        Args:
            mlflow_uri: the store or server; None: MLFLOW_TRACKING_URI, else the store that `mlflow ui` opens in
                the working directory.
            experiment: made if it is not there.
            tags: added to the run's own.
            run_name: None: the method and the run directory's name.
            parent_run_id: the MLflow run under which this one is nested.
            key: identifies the recording, so that a run that goes on finds its MLflow run again; None: a new one.
            judge: see `Membership`.
            close_timeout: seconds that `run_finished` waits at most.
            away_timeout: seconds that it waits at most for a store that is known to be away.
            process: talks to MLflow in place of a thread of this process.
            history: gives all rounds so far, with `ROUND_SCHEMA`; by it a thread sends all that such a process has not
                sent, where it has died or did not get to it.
            identity: of the process that the run is in (`fedbench.system.processes`); None: this one.

        Raises:
            ConfigError: the experiment's name is empty, or has a slash, which MLflow's pages take for a path.
        """
        key = key or uuid.uuid4().hex
        identity = identity or this_process()
        self.recording = MlflowRun(mlflow_uri, experiment, key, identity=identity)
        self.warning: str | None = None
        self._process = process
        self._history = history
        self._settings = {
            "mlflow_uri": None if self.recording.is_default_store else self.recording.uri,
            "experiment": experiment,
            "tags": dict(tags or {}),
            "run_name": run_name,
            "parent_run_id": parent_run_id,
            "key": key,
            "close_timeout": close_timeout,
            "away_timeout": away_timeout,
            "identity": identity,
        }
        self._tags = dict(tags or {})
        self._run_name = run_name
        self._parent_run_id = parent_run_id
        self._judge = judge
        self._earlier: list[RoundRecord] = []
        self._close_timeout = close_timeout
        self._away_timeout = away_timeout
        self._run: RunDescription | None = None
        self._started = 0
        self._uplink = self._downlink = self._flops = 0
        self._joules: float | None = 0.0

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the store has been reached."""
        return self.recording.run_id

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment; None until the store has been reached."""
        return self.recording.experiment_id

    def run_started(self, run: RunDescription) -> None:
        """Queue the opening of the store and the description of the run.

        A thread in the background begins with the first metrics: importing mlflow takes seconds of a core, and the
        first round is waited for.
        """
        self._run, self._started = run, now()
        if self._process is None:
            self.open(run, self._started)
        else:
            self._process.tell("begin", tracker=self._settings, argv=sys.argv, run=vars(run), started=self._started)
        for record in self._earlier:
            self.round_finished(record, ())

    def open(self, run: RunDescription, started: int) -> None:
        """Queue the same in this process, for a run that has started at `started`, in milliseconds since 1970."""
        self._run = run
        tags = {**run.tags, "task": run.task, **self._tags, DIRECTORY_TAG: run.directory, NOTE: run.note}
        if run.group_names:
            tags["layer_groups"] = numbered(run.group_names)[:LONGEST_TAG]
        if self._parent_run_id is not None:
            tags["mlflow.parentRunId"] = self._parent_run_id
        self.recording.open(self._run_name or name_of_run(run.tags, Path(run.directory)), tags, started=started)
        self.recording.submit(skip_what_is_there, essential=True)
        self.recording.submit(lambda recording: log_parameters(recording, run))
        self.recording.submit(lambda recording: log_dataset(recording, run))

    def resumed(self, history: pa.Table) -> None:
        """The run goes on after these rounds: those that the store does not have are sent, too."""
        self._earlier = [RoundRecord(**row) for row in history.to_pylist()]

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Queue the round's metrics, at the step that is its number, from 1."""
        self._uplink += record.uplink_bytes
        self._downlink += record.downlink_bytes
        self._flops += record.client_flops
        self._joules = added(self._joules, record.joules)
        metrics: dict[str, float | None] = {
            "test/accuracy": record.test_accuracy,
            "test/loss": record.test_loss,
            "validation/accuracy": record.validation_accuracy,
            "validation/loss": record.validation_loss,
            "train/loss": record.train_loss,
            "comm/uplink_mb": self._uplink / 1e6,
            "comm/downlink_mb": self._downlink / 1e6,
            "compute/tflop": self._flops / 1e12,
            "paper/comm_gb": record.paper_comm_gb,
            "paper/comp_tflop": record.paper_comp_tflop,
            "schedule/group": record.group,
            ROUND_SECONDS: record.wall_seconds,
            "async/staleness_mean": record.staleness_mean,
            "async/staleness_max": record.staleness_max,
            "time/virtual_s": record.virtual_seconds,
            "energy/joules": self._joules,
            "async/virtual_s": record.virtual_seconds if record.phase == "async" else None,
            "async/epochs": record.epochs,
            **{f"steps/{name}": getattr(record, name) for name in STEP_FIGURES},
            **{f"probe/{name}": getattr(record, name) for name in PROBE_FIGURES},
            **{f"divergence/{name}": getattr(record, name) for name in DIVERGENCE_FIGURES},
            **{f"clients/{name.removeprefix('client_')}": getattr(record, name) for name in CLIENT_FIGURES},
            **self._client_scores(record),
            **further_metrics(record),
        }
        self.log(record.round + 1, metrics)

    def _client_scores(self, record: RoundRecord) -> dict[str, float]:
        """What is known of clients' scores by another metric than accuracy, such as "clients/perplexity_mean"."""
        assert self._run is not None
        known = {name: value for name in SCORE_FIGURES if (value := getattr(record, name)) is not None}
        return {name.replace("client_score", f"clients/{self._run.headline.name}"): known[name] for name in known}

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Send the rest and the run directory's files, and wait for it a bounded time; see `warning` then."""
        if self._run is None:
            return
        ended, verdict = now(), self._judge(summary) if self._judge is not None else None
        if (process := self._process) is None:
            self.close(summary, verdict, ended)
        elif (answer := self._answer(process, summary, verdict, ended)) is not None:
            self.recording.run_id, self.recording.experiment_id = answer["run_id"], answer["experiment_id"]
            self.warning = answer["warning"]
        elif process.is_at_work() or self._history is None:
            self._warn(f"MLflow did not get the whole run ({process.fault})")
        else:
            self._send_from_here(process, self._history(), self._run)
            self.close(summary, verdict, ended)

    def _answer(
        self, process: SendingProcess, summary: Mapping[str, Any], verdict: Verdict | None, ended: int
    ) -> dict[str, Any] | None:
        """What the process says at the end, as `fedbench.tracking.sender` has it."""
        if not process.is_loaded(LOADING_TIMEOUT):
            return None
        return process.ask(
            self._close_timeout + ANSWER_TIMEOUT,
            "finish",
            summary={name: summary.get(name) for name in ("status", *self._outcomes().values())},
            verdict=None if verdict is None else {"tags": dict(verdict.tags), "metrics": dict(verdict.metrics)},
            ended=ended,
        )

    def _send_from_here(self, process: SendingProcess, history: pa.Table, run: RunDescription) -> None:
        """Queue everything in this process; what the other one has sent is not doubled."""
        process.close()
        self._process = None
        self._uplink = self._downlink = self._flops = 0
        self._joules = 0.0
        self.open(run, self._started)
        for row in history.to_pylist():
            self.round_finished(RoundRecord(**row), ())

    def close(self, summary: Mapping[str, Any], verdict: Verdict | None, ended: int) -> None:
        """Send the rest from this process, as `run_finished`, for a run that has ended at `ended`."""
        assert self._run is not None
        outcome: dict[str, float | None] = {metric: summary.get(figure) for metric, figure in self._outcomes().items()}
        if verdict is not None:
            outcome |= verdict.metrics
            self.recording.set_tags(verdict.tags)
        self.recording.submit(lambda recording: log_outcome(recording, outcome, ended))
        self.recording.start()
        directory = Path(self._run.directory)
        self.recording.log_files(directory, recorded_files(directory))
        status = str(summary.get("status"))
        self._warn(self.recording.close(status, ended, self._close_timeout, self._away_timeout))

    def _outcomes(self) -> dict[str, str]:
        """{metric of the whole run: the figure of `summary.json`}: the task's headline, "best/accuracy" for one."""
        assert self._run is not None
        name = self._run.headline.name
        return {f"best/{name}": f"best_{name}", f"best/validation_{name}": f"best_validation_{name}"}

    def _warn(self, problem: str | None) -> None:
        assert self._run is not None
        self.warning = problem and f"{problem}; everything is in {Path(self._run.directory)}"

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Queue metrics of one step; None is left out. Returns at once."""
        if self._process is None:
            self.recording.log(step, metrics, now())
            self.recording.start()
        else:
            self._process.tell("log", step=step, metrics=dict(metrics), logged=now())

    def ui_command(self) -> str | None:
        """The command that opens MLflow's pages on this store; None where a server shows them, or has nothing of it."""
        uri = self.recording.uri
        if is_server(uri) or (self.warning is not None and self.recording.run_id is None):
            return None
        if self.recording.is_default_store:
            return "mlflow ui"
        return f"mlflow ui --backend-store-uri {shlex.quote(without_passwords(uri))}"

    def ui_link_fragment(self) -> str:
        """The part of a link, behind the address of MLflow's pages, that shows this experiment's runs as charts."""
        return charts_fragment(self.experiment_id)
