"""Joining a Ray cluster, or starting a local Ray, and leaving it again."""

import atexit
import logging
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import ray
from ray._private import external_storage, gcs_pubsub, node
from ray.exceptions import RayError

from fedbench.engine.on_ray.daemons import fewest_daemons
from fedbench.engine.on_ray.lifetime import is_ray_kept
from fedbench.errors import RunError

PROBE_TIMEOUT = 5.0
"""Seconds in which the head of a cluster must accept a connection, and then answer on it."""

RECONNECT_SECONDS = "300"
"""Seconds for which Ray itself tries to reach a head that is gone; `HEAD_TIMEOUT` is what fedbench waits."""

END_TIMEOUT = 2.0
"""Seconds in which processes of a local Ray that were killed must have ended."""

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The environment variable that Ray sets for what `ray job submit` starts."""


_kept: tuple[str, str] | None = None
"""What `_name_of_connection` gave for the local Ray that is kept until this process ends; None: none is."""


def join(address: str | None) -> bool:
    """Use the Ray that this process is connected to, or else `connect`.

    A local Ray that is started within `ray_kept` stays for the next one who needs Ray, until the process ends. It is
    left for a new one where it has died, or where a cluster is asked for.

    Args:
        address: as for `connect`.

    Returns:
        Whether the caller has to `disconnect` when it needs Ray no more.

    Raises:
        RunError: as for `connect`.
    """
    global _kept
    if _kept is not None and (_wanted(address) != "local" or not _is_alive(_kept)):
        end_kept()
    if ray.is_initialized():
        return False
    connect(address)
    if _wanted(address) != "local" or not is_ray_kept():
        return True
    _kept = _name_of_connection()
    atexit.unregister(end_kept)
    atexit.register(end_kept)
    return False


def end_kept() -> None:
    """End the local Ray that is kept, if it is still what this process is connected to."""
    global _kept
    kept, _kept = _kept, None
    if kept is not None and ray.is_initialized() and _name_of_connection() == kept:
        disconnect()


def _name_of_connection() -> tuple[str, str]:
    """What tells the present connection from every other of this process: the address of its head, and its job."""
    context = ray.get_runtime_context()
    return str(context.gcs_address), str(context.get_job_id())


def _is_alive(kept: tuple[str, str]) -> bool:
    """Whether the Ray that was kept is still the one connected to, and its head accepts connections."""
    if not ray.is_initialized() or _name_of_connection() != kept:
        return False
    host, _, port = kept[0].rpartition(":")
    with suppress(OSError):
        socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT).close()
        return True
    return False


def _wanted(address: str | None) -> str:
    """The address to connect to; "local" for a Ray of this machine."""
    return address or os.environ.get("RAY_ADDRESS") or "local"


def connect(address: str | None) -> None:
    """Join the Ray cluster at `address`, or start a local Ray without dashboard and with the fewest daemons.

    The processes of a local Ray do not heed SIGTERM: one that is sent to the whole process group, as `timeout` and
    batch systems send it, ends this process at its own time, and Ray with it.

    Args:
        address: address of the cluster; None takes that of RAY_ADDRESS, and without it starts a local Ray.

    Raises:
        RunError: no cluster answers at the address, or no local Ray can be started.
    """
    given = _wanted(address)
    local = given == "local"
    options: dict[str, Any] = {"address": given}
    if local:
        options["include_dashboard"] = False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray protects a local cluster with a token, and would log that every time.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    else:
        _check_address(given)
    job = None if IN_A_JOB in os.environ else _without_search_path()
    if job is not None:
        options["job_config"] = job
    # Ray would end this process, wherever it is, so many seconds after the head of the cluster has died.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", RECONNECT_SECONDS)
    ray._private.worker._worker_logs_enabled = False  # of its daemons, whose last words Ray would print
    # Ray would print errors of calls whose results nobody waits for any more after fedbench's own last line.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Whoever keeps this Ray may use it for other tasks, too; `uv run` and hooks of Ray's give a job an environment.
        has_environments = lambda: job is None or is_ray_kept() or bool(job.runtime_env)  # noqa: E731
        daemons = fewest_daemons(has_environments) if local else nullcontext()
        with _sigterm_blocked(), _caller_undisturbed(), daemons:  # child processes inherit what is blocked
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray installs its own handler, which ends the process at once
    except BaseException as error:  # KeyboardInterrupt, too, leaves nothing running
        with suppress(Exception):
            disconnect()
        if isinstance(error, OSError | RuntimeError | ValueError | RayError):
            raise RunError(_reason(given, error)) from None
        raise


def is_local() -> bool:
    """Whether this process is connected to a Ray that it has started itself, and that ends with it."""
    started: Any = ray._private.worker._global_node
    return ray.is_initialized() and started is not None and bool(started.is_head())


def disconnect() -> None:
    """Leave the cluster; end the local Ray that `connect` has started."""
    children: list[Any] = []
    with suppress(AttributeError):
        local_node: Any = ray._private.worker._global_node
        if local_node is not None:
            children = _children(local_node)
            end_all = local_node.kill_all_processes
            # Ray would wait a second for each process that does not heed SIGTERM.
            local_node.kill_all_processes = lambda check_alive=True, allow_graceful=False, wait=False: end_all(
                check_alive=check_alive, allow_graceful=False, wait=wait
            )
    ray.shutdown()
    for child in children:
        with suppress(Exception):  # it has ended, as it should
            child.kill()
    until = time.monotonic() + END_TIMEOUT
    while any(map(_is_running, children)) and time.monotonic() < until:
        time.sleep(0.01)


def _is_running(process: Any) -> bool:
    """Whether a process is still there, and not only its entry that nobody has asked for."""
    import psutil

    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _children(node: Any) -> list[Any]:
    """The processes that the daemons of a local Ray have started, and which notice late that those are gone."""
    import psutil

    children: list[Any] = []
    for started in node.all_processes.values():
        for daemon in started:
            with suppress(psutil.Error):
                children += psutil.Process(daemon.process.pid).children(recursive=True)
    return children


def _check_address(address: str) -> None:
    """Contact the head of a cluster.

    Raises:
        RunError: nothing answers there within seconds, where Ray itself would try again for minutes.
    """
    if address == "auto":
        with suppress(Exception):  # what Ray itself says of a cluster that it does not find is enough
            address = ray._private.services.canonicalize_bootstrap_address("auto") or address
    _, separator, rest = address.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(_unanswered(address, f"connecting to it: {str(reason).lower()}")) from None
    if os.environ.get("RAY_USE_TLS", "0") not in ("0", "") or separator:
        return
    import grpc

    with grpc.insecure_channel(rest) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PROBE_TIMEOUT)
        except grpc.FutureTimeoutError:
            raise RunError(_unanswered(address, "what listens there does not speak Ray's protocol")) from None


def _unanswered(address: str, reason: str) -> str:
    remedy = "start the cluster, name another address, or leave it out for a Ray on this machine"
    where = "runtime.address" if os.environ.get("RAY_ADDRESS") != address else "RAY_ADDRESS"
    return f"{where}={address}: no Ray cluster answers ({reason}); {remedy}"


def _reason(address: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "AF_UNIX path length" in text:
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        return f"{folder}: too long a path for the sockets of a local Ray; set RAY_TMPDIR to a short one, such as /tmp"
    if "auth" in type(error).__name__.lower() or "RAY_AUTH" in text:
        return f"Ray's token: {text.partition('. ')[0]}; see cluster/README.md on tokens, or unset RAY_AUTH_TOKEN_PATH"
    if address == "local":
        return f"no Ray could be started on this machine ({text}); runtime.executor=inline does without"
    return _unanswered(address, text)


def _without_search_path() -> Any:
    """A job's configuration by which no worker puts this process's folders before its libraries.

    A file of the working directory would else stand in for a library in every actor. What actors need of the search
    path comes with `fedbench.components.named_code.Shipment`.
    """
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _Kept(job._py_driver_sys_path)
    return job


class _Kept(list[str]):
    """A list that Ray cannot extend."""

    def extend(self, values: Iterable[str]) -> None:
        """Leave the list as it is."""


@contextmanager
def _caller_undisturbed() -> Iterator[None]:
    """Context in which Ray is initialised: `breakpoint()` then opens what it opened before.

    Three of Ray's modules draw names from Python's global generator. They are given one of their own, so that the
    caller's stays as it was but for what the compiled part of Ray draws.
    """
    hook = os.environ.get("PYTHONBREAKPOINT")
    drawing: tuple[Any, ...] = (external_storage, gcs_pubsub, node)
    for module in drawing:
        if getattr(module, "random", None) is random:
            module.random = random.Random()
    try:
        yield
    finally:
        if hook is None:
            os.environ.pop("PYTHONBREAKPOINT", None)
        else:
            os.environ["PYTHONBREAKPOINT"] = hook


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Context in which this thread, and the processes that it starts, receive no SIGTERM; one that comes waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
