"""Studies in a PostgreSQL database: joined, killed, gone on with, and what is said where there is none."""

import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from command_line import Finished, in_this_process
from optuna.trial import FrozenTrial, TrialState
from postgresql_server import PASSWORD, PostgresqlServer, skip_without_postgresql
from shared_studies import ENDED_WELL, LONGER, PRUNER, share_kill_interrupt_and_go_on
from small_studies import PATIENCE, Commands, run_study, written
from waiting import wait_until

from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError
from fedbench.studies.shared_study import counts
from fedbench.studies.storage import close_storage, open_storage, with_driver


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    skip_without_postgresql()
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def watched(url: str) -> Iterator[Callable[[], list[FrozenTrial]]]:
    """Context with a function that gives the trials as they stand in the database; none before the study is there."""
    storage = open_storage(url)

    def trials() -> list[FrozenTrial]:
        try:
            return optuna.load_study(study_name="small", storage=storage).get_trials()
        except KeyError:
            return []

    try:
        yield trials
    finally:
        close_storage(storage)


def trials(url: str) -> list[FrozenTrial]:
    """As they stand in the database now."""
    with watched(url) as now:
        return now()


def counted(url: str) -> list[FrozenTrial]:
    return [trial for trial in trials(url) if counts(trial)]


def wait_for_a_running_trial(url: str, done: int) -> None:
    def met() -> bool:
        found = now()
        running = any(trial.state == TrialState.RUNNING and trial.params for trial in found)
        return running and sum(trial.state.is_finished() for trial in found) >= done

    with watched(url) as now:
        wait_until(met, f"no {done} finished and a running trial")


def shows_no_password(*ended: Finished) -> bool:
    return not any(PASSWORD in one.stdout + one.stderr for one in ended)


@pytest.mark.slow
def test_a_study_that_two_processes_share_survives_a_kill_and_an_interrupt_and_shows_no_password(
    server: PostgresqlServer, commands: Commands, call: Callable[..., Finished], here: Path
) -> None:
    url = server.make_database("shared")
    with watched(url) as now:
        ended = share_kill_interrupt_and_go_on(commands, call, here, now, "--storage", url)
    assert "--storage 'postgresql://bench:***@/" in ended[0].stderr
    assert json.loads(ended[1].stdout)["storage"] == without_passwords(url)
    assert shows_no_password(*ended)
    # Every trial that counts has its directory, and there is none that belongs to no trial. A command that is killed
    # between drawing the parameters of a trial and making its directory leaves a trial without one.
    folders = {path.name for path in (here / "runs" / "studies" / "small").glob("trial-*")}
    drawn = {f"trial-{trial.number:04d}-seed-0": counts(trial) for trial in trials(url) if trial.params}
    assert {name for name, counted in drawn.items() if counted} <= folders <= drawn.keys()


def status_of_study(here: Path) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("fedbench").experiment_id])
    (parent,) = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    return str(parent.info.status)


@pytest.mark.slow
@pytest.mark.usefixtures("made_store")
def test_a_server_that_goes_away_ends_the_command_in_one_line_and_the_study_goes_on_when_it_is_back(
    server: PostgresqlServer, commands: Commands, call: Callable[..., Finished], here: Path
) -> None:
    url = server.make_database("lost")
    tracked = [text for text in LONGER if not text.startswith("tracking")]
    path = written(here, overrides=tracked, pruner=PRUNER, budget={"trials": 3}, storage=url)
    process = commands.start("sweep", path.name, "--concurrency", "1")
    wait_for_a_running_trial(url, done=1)
    server.stop()
    try:
        ended = commands.finish(process)
    finally:
        server.start()
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert said.startswith(f"error: storage={without_passwords(url)}: cannot be reached any more (")
    assert status_of_study(here) == "FAILED"

    again = call("sweep", path.name, "--concurrency", "1")
    assert again.status == 0, again.stderr
    done = counted(url)
    assert len(done) == 3
    assert {trial.state for trial in done} <= ENDED_WELL
    assert status_of_study(here) == "FINISHED"
    assert shows_no_password(ended, again)


@pytest.mark.slow
def test_connections_are_given_back_when_the_study_is_done(server: PostgresqlServer, here: Path) -> None:
    url = server.make_database("connected")
    result = run_study(storage=url, pruner=PRUNER, budget={"trials": 1})
    used_by = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'connected'"
    wait_until(lambda: server.query("postgres", used_by) == [(0,)], "a connection is still open")
    assert len(result.study.trials) == 1  # what it returned can be asked all the same
    assert server.query("postgres", used_by) == [(1,)]


def _open_with_others(url: str, gate: object, told: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    try:
        open_storage(url)
        told.put("opened")  # type: ignore[attr-defined]
    except Exception as error:
        told.put(repr(error))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_several_processes_may_be_the_first_in_a_new_database(server: PostgresqlServer) -> None:
    context = multiprocessing.get_context("spawn")
    url, gate, told = server.make_database("raced"), context.Barrier(3), context.Queue()
    racers = [context.Process(target=_open_with_others, args=(url, gate, told)) for _ in range(3)]
    for racer in racers:
        racer.start()
    assert [told.get(timeout=PATIENCE) for _ in racers] == ["opened"] * 3
    for racer in racers:
        racer.join()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("password", "password authentication failed"),
        ("database", 'database "nothere" does not exist'),
        ("folder", "No such file or directory"),
        ("port", "Connection refused"),
        ("encoding", "an @ in a user's name or password is written %40"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line_without_a_password(
    server: PostgresqlServer,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wrong: str,
    said: str,
) -> None:
    url = {
        "password": server.url("postgres", f"{PASSWORD}-"),
        "database": server.url("nothere"),
        "folder": f"postgresql://bench:{PASSWORD}@/postgres?host={server.folder}/nowhere",
        "port": f"postgresql://bench:{PASSWORD}@127.0.0.1:1/postgres",
        "encoding": f"postgresql://bench:x@{PASSWORD}@127.0.0.1:1/postgres",
    }[wrong]
    fedbench = in_this_process(monkeypatch, capfd)
    ended = fedbench("sweep", written(here).name, "--storage", url)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: storage=postgresql://bench:***@")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert shows_no_password(ended)
    assert not (here / "runs").exists()


def test_without_its_driver_the_message_says_what_to_install(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for package in ("psycopg2", "psycopg"):
        monkeypatch.setitem(sys.modules, package, None)  # so that importing it fails
    fedbench = in_this_process(monkeypatch, capfd)
    for scheme in ("postgresql", "postgresql+psycopg2"):
        ended = fedbench("sweep", written(here).name, "--storage", f"{scheme}://bench:{PASSWORD}@127.0.0.1/x")
        assert (ended.status, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"error: storage={scheme}://bench:***@127.0.0.1/x: ")
        assert ended.stderr.endswith("for PostgreSQL: pip install psycopg2-binary\n")
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert shows_no_password(ended)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:a@b:c/d?e@host:5432/x", "postgresql://me:***@host:5432/x"),
        ("postgresql://:pw@host/x", "postgresql://:***@host/x"),
        ("postgresql:///x?host=h&user=me&password=pw&port=1", "postgresql:///x?host=h&user=me&password=***&port=1"),
        ("--storage=mysql+pymysql://me:pw@host/x", "--storage=mysql+pymysql://me:***@host/x"),
        ("postgresql://me@host:5432/x", "postgresql://me@host:5432/x"),
        ("sqlite:////srv/a@b/study.db", "sqlite:////srv/a@b/study.db"),
        ("runs/studies/small/journal.log", "runs/studies/small/journal.log"),
    ],
)
def test_a_password_is_hidden_however_it_is_given(url: str, shown: str) -> None:
    assert without_passwords(url) == shown


def test_a_url_with_an_at_sign_too_many_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match=r"storage=mysql://me:\*\*\*@host/x: an @ in .* is written %40"):
        open_storage("mysql://me:p@ss@host/x")


def test_the_driver_that_is_there_is_taken_and_one_that_is_named_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stands_for_both = sys.modules["json"]
    for there, taken in ((("psycopg2", "psycopg"), "psycopg2"), (("psycopg",), "psycopg"), ((), "psycopg2")):
        for package in ("psycopg2", "psycopg"):
            monkeypatch.setitem(sys.modules, package, stands_for_both if package in there else None)
        for scheme in ("postgresql", "postgres"):
            assert with_driver(f"{scheme}://me@host/x") == f"postgresql+{taken}://me@host/x"
        for kept in ("postgresql+pg8000://me@host/x", "sqlite:///x.db", "mysql://me@host/x"):
            assert with_driver(kept) == kept
