"""Several processes on one study, without trials: the budget, who is alive, what is done again."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import study

from fedbench.errors import ConfigError
from fedbench.studies.file import parse_study
from fedbench.studies.samplers import make_pruner, make_sampler
from fedbench.studies.shared_study import INTERRUPTED, SILENT_SECONDS, SharedStudy, counts, open_study
from fedbench.studies.storage import open_storage
from fedbench.system.processes import start_of


def shared_study(folder: Path, trials: int | None, seed: int = 0) -> SharedStudy:
    """As a process of its own has it."""
    file = parse_study(study(sampler={"name": "random", "seed": seed}))
    storage = open_storage(str(folder / "journal.log"))
    return SharedStudy(open_study(file, storage, make_sampler(file, 0), make_pruner(file)), storage, trials)


def begun(one: SharedStudy) -> optuna.Trial:
    trial = one.ask(None)
    assert trial is not None
    trial.suggest_float("local.optimizer.lr", 0.001, 0.05, log=True)
    return trial


def test_a_trial_beyond_the_budget_is_dropped_and_does_not_count(tmp_path: Path) -> None:
    one, other = shared_study(tmp_path, 2), shared_study(tmp_path, 2, seed=1)
    first, second = begun(one), begun(other)
    # Both saw room before either had asked: the third is one too many.
    assert one.ask(None) is None
    assert [trial.state for trial in one.trials()] == [TrialState.RUNNING] * 2 + [TrialState.FAIL]
    assert not one.has_room()
    assert not one.is_done()
    one.complete(first.number, [0.5])
    other.fail(second.number, "it broke")
    assert one.is_done()
    assert [counts(trial) for trial in one.trials()] == [True, True, False]


def test_an_interrupted_trial_makes_room_for_itself(tmp_path: Path) -> None:
    one = shared_study(tmp_path, 1)
    trial = begun(one)
    assert one.interrupt(trial.number)
    assert not one.is_done()
    again = shared_study(tmp_path, 1)
    assert again.has_room()
    retried = begun(again)
    assert retried.params == trial.params
    again.complete(retried.number, [0.5])
    assert again.is_done()


@pytest.mark.parametrize(
    ("process", "gone"),
    [
        ({"host": "here", "pid": "own", "start": "own", "age": 0}, False),
        ({"host": "here", "pid": "own", "start": "own", "age": 10 * SILENT_SECONDS}, False),
        ({"host": "here", "pid": "own", "start": "another", "age": 0}, True),
        ({"host": "here", "pid": "ended", "start": "own", "age": 0}, True),
        ({"host": "elsewhere", "pid": "ended", "start": "another", "age": SILENT_SECONDS - 30}, False),
        ({"host": "elsewhere", "pid": "own", "start": "own", "age": SILENT_SECONDS + 1}, True),
    ],
)
def test_what_runs_in_a_process_that_is_gone_is_run_again_once(
    tmp_path: Path, process: dict[str, str | float], gone: bool
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    one = shared_study(tmp_path, 3)
    one.beat()
    trial = begun(one)
    said = {
        "host": socket.gethostname() if process["host"] == "here" else "elsewhere",
        "pid": os.getpid() if process["pid"] == "own" else ended.pid,
        "start": start_of(os.getpid()) if process["start"] == "own" else "0",
        "beat": time.time() - float(process["age"]),
    }
    one.study.set_user_attr(f"fedbench:driver:{one.process}", said)
    others = [shared_study(tmp_path, 3), shared_study(tmp_path, 3)]
    assert [other.recover() for other in others] == [int(gone), 0]
    states = [one.state for one in others[0].trials()]
    assert states == ([TrialState.FAIL, TrialState.WAITING] if gone else [TrialState.RUNNING])
    assert bool(others[0].trials()[0].user_attrs.get(INTERRUPTED)) == gone
    if gone:  # the process was only slow, and tells what nobody waits for any more
        one.complete(trial.number, [0.9])
        assert [one.state for one in others[1].trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_a_process_that_left_has_nothing_running(tmp_path: Path) -> None:
    one = shared_study(tmp_path, 2)
    one.beat()
    begun(one)
    one.leave()
    assert shared_study(tmp_path, 2).recover() == 1


def test_processes_one_after_the_other_have_places_in_order(tmp_path: Path) -> None:
    assert [shared_study(tmp_path, 3).join() for _ in range(3)] == [0, 1, 2]


def test_processes_that_come_at_the_same_moment_have_places_of_their_own(tmp_path: Path) -> None:
    # Equal places are equal seeds: both would run the same trials.
    together = [shared_study(tmp_path, 3) for _ in range(6)]
    gate = threading.Barrier(len(together))

    def join(one: SharedStudy) -> int:
        gate.wait()
        return one.join()

    with ThreadPoolExecutor(len(together)) as pool:
        places = list(pool.map(join, together))
    assert len(set(places)) == len(together), places
    later = shared_study(tmp_path, 3).join()
    assert later == len(together)


def test_two_processes_on_a_grid_choose_each_combination_once(tmp_path: Path) -> None:
    combinations = [{"local.optimizer.lr": value} for value in (0.001, 0.01, 0.05)]
    one, other = shared_study(tmp_path, 3), shared_study(tmp_path, 3, seed=1)
    chosen = []
    for process in (one, other, one):
        trial = process.ask(combinations)
        assert trial is not None
        chosen.append(trial.suggest_float("local.optimizer.lr", 0.001, 0.05, log=True))
        assert not process.is_repeated(trial)
    assert sorted(chosen) == [0.001, 0.01, 0.05]
    assert other.ask(combinations) is None


def test_a_storage_that_cannot_be_opened_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    torn = tmp_path / "torn.log"
    torn.write_text('{"op_code": 0, "wor\n{"op_code": 1}\n')
    for where in (str(torn), "nosuch://x", "sqlite:////nowhere/at/all.db"):
        with pytest.raises(ConfigError, match="storage="):
            open_storage(where)
