"""A study in Optuna's storage, shared by all processes that work on it: whose turn it is, who is alive, what is done.

Several processes ask and tell without talking to each other. What keeps them together is the trial's number, which the
storage gives out once: a trial whose place in the order of counted trials is beyond the budget is dropped.
"""

import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from fedbench.errors import ConfigError
from fedbench.studies.file import StudyFile
from fedbench.system.processes import start_of

DRIVER = "fedbench:driver"
INTERRUPTED = "fedbench:interrupted"
KEY = "fedbench:key"
SURPLUS = "fedbench:surplus"
DEFINITION = "fedbench:definition"
REASON = "fedbench:reason"
FLOPS = "fedbench:client_flops"

DEFINITION_SECONDS = 5.0
BEAT_SECONDS = 30.0
SILENT_SECONDS = 180.0
"""Seconds without a beat after which a process on another machine is taken for dead."""

MOST_IN_ORDER = 1024
"""Places up to here are given in order; a sampler's seed of 32 bits has room for them and for those drawn at random."""

UNCLAIMED_SECONDS = 20.0
"""Seconds after which a running trial without the name of a process was left behind between two writes."""


def open_study(study: StudyFile, storage: BaseStorage, sampler: BaseSampler, pruner: BasePruner) -> optuna.Study:
    """The study in its storage, made if it is not there.

    Raises:
        ConfigError: one by that name is there that was about something else.
    """
    try:
        opened = optuna.create_study(
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            study_name=study.name,
            directions=[objective.direction for objective in study.objectives],
        )
    except DuplicatedStudyError:
        opened = optuna.load_study(storage=storage, sampler=sampler, pruner=pruner, study_name=study.name)
        _await_definition(opened)
    if DEFINITION not in opened.user_attrs and not opened.get_trials(deepcopy=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            opened.set_metric_names([objective.metric for objective in study.objectives])
        opened.set_user_attr(KEY, uuid.uuid4().hex)
        opened.set_user_attr(DEFINITION, study.definition())
    if opened.user_attrs.get(DEFINITION) != study.definition():
        raise ConfigError(
            f"name={study.name}: the storage has a study of that name with another base, space, objectives, seeds or "
            "code of one's own; add name=ANOTHER, or go on with it as it was"
        )
    return opened


def _await_definition(study: optuna.Study) -> None:
    """Another process may just have made the study, and be about to write what it is."""
    deadline = time.monotonic() + DEFINITION_SECONDS
    while DEFINITION not in study.user_attrs and time.monotonic() < deadline:
        time.sleep(0.2)


class SharedStudy:
    """One process' view of a shared study.

    Attributes:
        study: the study in Optuna.
        process: this process' name in the study.
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage, trials: int | None) -> None:
        """Args:
        storage: holds the study.
        trials: the budget of trials; None: no bound.
        """
        self.study = study
        self._storage = storage
        self.process = uuid.uuid4().hex
        self._trials = trials
        self._next_beat = 0.0
        self._entry: dict[str, Any] = _this_process()

    def join(self) -> int:
        """Put this process' name to the study; once, before anything else.

        Returns:
            Its place among the processes and starts of the study, which no other has: from 0, in their order; some
            large number for one that came at the same moment as another.
        """
        place = len(self._drivers())
        self._entry["place"] = place
        self.beat()
        # Of several that counted the same, at most one, the first to write, does not see it here; the rest give way.
        others = (entry for name, entry in self._drivers().items() if name != _driver_key(self.process))
        if any(entry.get("place") == place for entry in others):
            return MOST_IN_ORDER + int(self.process, 16) % 2**20
        return place

    def _drivers(self) -> dict[str, dict[str, Any]]:
        return {key: entry for key, entry in self.study.user_attrs.items() if key.startswith(_driver_key(""))}

    def beat(self) -> None:
        """Record that this process is alive, at most every `BEAT_SECONDS`; to be called often."""
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT_SECONDS
            self.study.set_user_attr(_driver_key(self.process), {**self._entry, "beat": time.time()})

    def leave(self) -> None:
        """Record that this process has ended its part in the study."""
        self.study.set_user_attr(_driver_key(self.process), {**self._entry, "beat": 0.0})

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, by number; not to be changed."""
        return self.study.get_trials(deepcopy=False)

    def counted(self) -> list[FrozenTrial]:
        """The trials that use up the budget: done, failed or running."""
        return [trial for trial in self.trials() if counts(trial)]

    def is_done(self) -> bool:
        """Whether the budget of trials is used up and none is running, here or elsewhere."""
        counted = self.counted()
        running = any(trial.state == TrialState.RUNNING for trial in counted)
        return self._trials is not None and not running and sum(1 for _ in finished(counted)) >= self._trials

    def has_room(self) -> bool:
        """Whether one more trial may be asked for."""
        if self._trials is None:
            return True
        taken = [trial for trial in self.counted() if trial.state != TrialState.WAITING]
        return len(taken) < self._trials

    def ask(self, combinations: list[dict[str, Any]] | None) -> optuna.Trial | None:
        """A trial that is within the budget, marked as this process'; None if another process was faster.

        Args:
            combinations: all combinations of a grid, of which the first untried one is next; None: no grid.
        """
        if combinations is not None and not self._enqueue_next(combinations):
            return None
        trial = self.study.ask()
        trial.set_user_attr(DRIVER, self.process)
        lower = [one for one in self.counted() if one.number < trial.number]
        if self._trials is not None and len(lower) >= self._trials:
            self.drop(trial)
            return None
        return trial

    def _enqueue_next(self, combinations: list[dict[str, Any]]) -> bool:
        tried = [trial.system_attrs.get("fixed_params", trial.params) for trial in self.counted()]
        waiting = any(trial.state == TrialState.WAITING for trial in self.trials())
        fresh = next((one for one in combinations if one not in tried), None)
        if fresh is not None and not waiting:
            self.study.enqueue_trial(fresh)
        return fresh is not None or waiting

    def is_repeated(self, trial: optuna.Trial) -> bool:
        """Whether an earlier trial of a grid has the same parameters: two processes chose at the same time."""
        return any(one.number < trial.number and one.params == trial.params for one in self.counted())

    def drop(self, trial: optuna.Trial) -> None:
        """Give up a trial that is one too many; it does not count."""
        trial.set_user_attr(SURPLUS, True)
        self.fail(trial.number, "one more than the budget: another process was faster")

    def fail(self, number: int, reason: str) -> None:
        """Record that a trial has failed, with a line that says why."""
        self._close(number, TrialState.FAIL, None, {REASON: reason})

    def prune(self, number: int) -> None:
        """A trial was ended early; its last reported accuracy is its value."""
        self._close(number, TrialState.PRUNED, None, {})

    def complete(self, number: int, values: list[float]) -> None:
        """Record the values of a trial that has ended."""
        self._close(number, TrialState.COMPLETE, values, {})

    def interrupt(self, number: int) -> bool:
        """A trial was interrupted: it failed, does not count, and waits to be run again from its start.

        Returns:
            Whether it was this process that put it into the queue again.
        """
        trial = self._trial(number)
        if not self._close(number, TrialState.FAIL, None, {INTERRUPTED: True, REASON: "interrupted"}):
            return False
        again = trial.system_attrs.get("fixed_params", trial.params) if not trial.params else trial.params
        if again:
            self.study.enqueue_trial(again, {"fedbench:again": number})
        return True

    def recover(self) -> int:
        """Put the running trials of processes that are gone back into the queue; how many."""
        count = 0
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and not self._is_alive(trial):
                count += self.interrupt(trial.number)
        return count

    def _is_alive(self, trial: FrozenTrial) -> bool:
        driver = trial.user_attrs.get(DRIVER)
        if driver == self.process:
            return True
        if driver is None:
            began = trial.datetime_start
            return began is None or (datetime.now() - began).total_seconds() < UNCLAIMED_SECONDS
        known = self.study.user_attrs.get(_driver_key(driver))
        return known is not None and is_alive(known, time.time())

    def _close(self, number: int, state: TrialState, values: list[float] | None, notes: dict[str, Any]) -> bool:
        """Tell how a trial ended; False if it was told otherwise meanwhile (this process was taken for dead)."""
        trial = self._trial(number)
        try:
            for key, value in notes.items():
                self._storage.set_trial_user_attr(trial._trial_id, key, value)
            self.study.tell(number, values, state=state)
        except (ValueError, UpdateFinishedTrialError):
            if self._trial(number).state.is_finished():
                return False
            raise
        return True

    def note(self, number: int, notes: dict[str, Any]) -> None:
        """Keep figures of a trial that is still running; nothing happens if it is not."""
        trial = self._trial(number)
        try:
            for key, value in notes.items():
                self._storage.set_trial_user_attr(trial._trial_id, key, value)
        except UpdateFinishedTrialError:
            return

    def _trial(self, number: int) -> FrozenTrial:
        return self.trials()[number]


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial uses up a part of the budget."""
    return not (trial.user_attrs.get(SURPLUS) or trial.user_attrs.get(INTERRUPTED))


def finished(trials: list[FrozenTrial]) -> Iterator[FrozenTrial]:
    """The counted trials that have ended."""
    return (trial for trial in trials if counts(trial) and trial.state.is_finished())


def is_alive(process: dict[str, Any], now: float) -> bool:
    """Whether a process that says this of itself still works on the study.

    On its own machine that is looked up; of another machine, what counts is when it was last heard of.
    """
    if process["beat"] == 0.0:
        return False
    if process["host"] == socket.gethostname():
        return start_of(int(process["pid"])) == str(process["start"])
    return bool(now - process["beat"] < SILENT_SECONDS)


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "start": start_of(os.getpid())}


def _driver_key(name: str) -> str:
    return f"fedbench:driver:{name}"
