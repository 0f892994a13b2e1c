"""`~` in paths, wherever they are given, and users of whom no home directory is known."""

import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished

from fedbench.config.experiment import ExperimentConfig
from fedbench.data.cache import cache_directory
from fedbench.errors import ConfigError
from fedbench.records.run_directory import runs_root
from fedbench.studies.file import find_study
from fedbench.suites.file import suite_path
from fedbench.system.home import expanded, expanded_address

TINY = ("rounds=1", "data.clients=2", "schedule=full", "runtime.executor=inline", "tracking.enabled=false")


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory, which is not the working directory."""
    folder = tmp_path / "at home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system has no name for, as in many containers, and no HOME."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "FEDBENCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_path_begins_in_the_home_as_in_a_shell(at_home: Path) -> None:
    assert expanded("~/data") == at_home / "data"
    assert expanded("~") == at_home
    assert (expanded("a/~"), expanded("~nobody-here/a")) == (Path("a/~"), Path("~nobody-here/a"))
    assert expanded_address("sqlite:///~/mlflow.db") == f"sqlite:///{at_home}/mlflow.db"
    assert expanded_address("~/journal.log") == str(at_home / "journal.log")
    for other in ("sqlite:///a/~", "http://host/~me", "postgresql://~@host/db"):
        assert expanded_address(other) == other


def test_every_path_of_a_configuration_may_begin_in_the_home(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ("data.root=~/data", "output.directory=~/run", "tracking.mlflow_uri=sqlite:///~/mlflow.db")
    config = ExperimentConfig.load(
        "fedavg-digits", [*paths, "participation.round_deadline=9", "participation.replay=~/c"]
    )
    assert (config.data.root, config.output.directory) == (at_home / "data", at_home / "run")
    assert config.tracking.mlflow_uri == f"sqlite:///{at_home}/mlflow.db"
    assert config.participation.replay == at_home / "c"
    asynchronous = ExperimentConfig.load("ormo-digits", ["delays.replay=~/events.parquet"])
    assert asynchronous.delays.replay == at_home / "events.parquet"
    (at_home / "own.yaml").write_text("rounds: 7\nschedule: full\n")
    assert ExperimentConfig.load("~/own.yaml", []).rounds == 7
    assert find_study("~/own.yaml") == suite_path("~/own.yaml") == at_home / "own.yaml"
    monkeypatch.setenv("FEDBENCH_RUNS", "~/runs")
    monkeypatch.setenv("FEDBENCH_CACHE", "~/cache")
    assert (runs_root(), cache_directory()) == (at_home / "runs", at_home / "cache")


def test_commands_write_to_and_read_from_the_home(
    call: Callable[..., Finished], run_folder: Path, at_home: Path
) -> None:
    assert call("run", *TINY, "output.directory=~/run").status == 0
    assert call("resume", "~/run").stderr == f"error: {at_home / 'run'}: is finished; nothing is left to do\n"
    assert call("report", "~/run", "--output", "~/report").status == 0
    assert (at_home / "report" / "report.html").is_file()
    assert call("new", "suite", "own", "--directory=~/parts").status == 0
    assert (at_home / "parts" / "own.yaml").is_file()
    missing = call("data", "digits", "--root=~/data", "--source=~/tree")
    assert missing.stderr == f"error: --source {at_home / 'tree'}: no such folder\n"
    assert not (run_folder / "~").exists()


@pytest.mark.usefixtures("homeless")
def test_without_a_home_what_needs_one_is_told_in_one_line(
    call: Callable[..., Finished], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDBENCH_CACHE")
    ended = call("run", *TINY, "data.root=~/data")
    assert (ended.status, ended.stderr.count("\n")) == (2, 1)
    assert "write ~/data as a whole path, or set HOME" in ended.stderr
    with pytest.raises(ConfigError, match=r"no home directory is known for user \d+: set FEDBENCH_CACHE to a folder"):
        cache_directory()
    assert call("run", *TINY).status == 0
