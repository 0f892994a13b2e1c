"""One study through all that may happen to the processes that work on it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

from command_line import Finished
from interrupted import interrupted_after
from optuna.trial import FrozenTrial, TrialState
from small_studies import BASE, Commands, written
from waiting import wait_until

from fedbench.studies.shared_study import INTERRUPTED, counts

LONGER = [*BASE, "rounds=12", "data.samples_per_client=200"]
"""Of trials that take about a second, so that a signal finds one that runs."""
PRUNER = {"name": "median", "n_startup_trials": 2}
"""With one, the processes that run trials write to the storage, too."""
ENDED_WELL = {TrialState.COMPLETE, TrialState.PRUNED}
TRIALS = 6


def drivers(trials: list[FrozenTrial]) -> set[str]:
    """The commands that have begun a trial."""
    return {trial.user_attrs["fedbench:driver"] for trial in trials if "fedbench:driver" in trial.user_attrs}


def done(trials: list[FrozenTrial]) -> int:
    """The number of trials that have ended."""
    return sum(trial.state.is_finished() for trial in trials)


def share_kill_interrupt_and_go_on(
    commands: Commands,
    call: Callable[..., Finished],
    here: Path,
    trials: Callable[[], list[FrozenTrial]],
    *options: str,
) -> list[Finished]:
    """Two commands work on a study at once; one is killed, the other interrupted, a third one ends it.

    Asserts that every trial of the budget is run once, that what was begun is run again with its parameters, and that
    nothing is left to do afterwards.

    Args:
        commands: starts the command that is killed, as a process of its own.
        call: carries out the others in this process.
        trials: the trials as the storage has them now.
        options: of `fedbench sweep`.

    Returns:
        The commands that ended by themselves.
    """
    path = written(here, overrides=LONGER, pruner=PRUNER, budget={"trials": TRIALS})
    command = ("sweep", path.name, "--concurrency", "1", *options)
    killed = commands.start(*command)
    wait_until(lambda: bool(drivers(trials())), "the command has not begun a trial")

    def kill() -> None:
        wait_until(lambda: len(drivers(trials())) == 2 and done(trials()) >= 2, "the two have not ended two trials")
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        already = done(trials())
        wait_until(lambda: done(trials()) > already, "the command that is left has not gone on")

    with interrupted_after(kill):
        stopped = call(*command)
    assert stopped.status == 130, stopped.stderr
    assert f"go on with: fedbench sweep {path.name} --concurrency 1" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    before = trials()

    ended = call(*command, "--json")
    assert ended.status == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["status"] == "finished"
    after = trials()
    counted = [trial for trial in after if counts(trial)]
    assert len(counted) == TRIALS
    assert {trial.state for trial in counted} <= ENDED_WELL
    assert [trial["number"] for trial in document["trials"] if trial["counts"]] == [trial.number for trial in counted]
    assert len({trial.params["local.optimizer.lr"] for trial in counted}) == TRIALS, "a trial was run twice"
    assert len(drivers(counted)) >= 2
    for trial in before:
        if counts(trial) and trial.state.is_finished():  # what was done is not done again
            assert after[trial.number].values == trial.values
        elif trial.params:  # what was begun is, with the same parameters
            assert after[trial.number].user_attrs[INTERRUPTED]
            again = [other for other in counted if other.params == trial.params]
            assert len(again) == 1
            assert again[0].number > trial.number
    assert Path(document["best_files"][0]).is_file()

    nothing_left = call(*command)
    assert nothing_left.status == 0, nothing_left.stderr
    assert len(trials()) == len(after)
    return [stopped, ended, nothing_left]
