"""Joining a Ray that is not there, and starting one that cannot be: one line within seconds, and no Ray is started."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbench.engine.on_ray import connection
from fedbench.engine.on_ray.connection import connect
from fedbench.errors import RunError

QUICK = 20.0
"""Seconds in which a wrong address is refused, where nothing listens."""

STARTED_WRONGLY = """
from fedbench.engine.on_ray.connection import connect
from fedbench.errors import RunError
try:
    connect(None)
except RunError as error:
    print(error)
"""


@pytest.fixture
def closed_port() -> int:
    """A port of this machine where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of this machine where connections are accepted, and nothing is ever said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("named_by", ["runtime.address", "RAY_ADDRESS"])
def test_an_address_where_nothing_answers_is_refused_at_once(
    scheme: str, named_by: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{scheme}127.0.0.1:{closed_port}"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if named_by == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(RunError) as refused:
        connect(address if named_by == "runtime.address" else None)
    assert time.monotonic() - began < QUICK
    assert str(refused.value) == (
        f"{named_by}={address}: no Ray cluster answers (connecting to it: connection refused); start the cluster, name "
        "another address, or leave it out for a Ray on this machine"
    )


def test_a_listener_that_is_no_ray_is_refused_in_time(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * connection.PROBE_TIMEOUT < 30
    monkeypatch.setattr(connection, "PROBE_TIMEOUT", 0.5)
    with pytest.raises(RunError, match=r"no Ray cluster answers .what listens there does not speak Ray's protocol"):
        connect(f"127.0.0.1:{silent_port}")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["a missing token", "a long folder"])
def test_what_keeps_a_local_ray_from_starting_is_one_line(fault: str, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    expected = {
        "a missing token": (
            {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"},
            "Ray's token: RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: /nowhere/token; see "
            "cluster/README.md on tokens, or unset RAY_AUTH_TOKEN_PATH",
        ),
        "a long folder": (
            {"RAY_TMPDIR": str(folder)},
            f"{folder}: too long a path for the sockets of a local Ray; set RAY_TMPDIR to a short one, such as /tmp",
        ),
    }
    settings, line = expected[fault]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # A process of its own: in this one a Ray of other tests may be running.
    ended = subprocess.run(
        [sys.executable, "-c", STARTED_WRONGLY], env=environment | settings, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, f"{line}\n"), ended.stderr


INTERRUPTED = """
import ray, time
from process_trees import descendants
from fedbench.engine.on_ray import connection

def interrupt(*arguments, **options):
    raise KeyboardInterrupt

before = set(descendants([os.getpid()]))
ray._private.worker.connect = interrupt
try:
    connection.connect(None)
except KeyboardInterrupt:
    deadline = time.monotonic() + 60
    while (left := set(descendants([os.getpid()])) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    print("left:", len(left))
"""


@pytest.mark.slow
def test_an_interrupt_while_ray_starts_leaves_no_daemon() -> None:
    """Its daemons run, and this process is not connected yet."""
    cluster = str(Path(__file__).parents[3] / "cluster")
    program = f"import os, sys; sys.path.append({cluster!r})" + INTERRUPTED
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert said.stdout == "left: 0\n", said.stderr
