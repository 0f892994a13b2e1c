"""Ports and tokens of a cluster on this machine."""

import os
import random
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections."""


def token_environment(folder: Path) -> dict[str, str]:
    """RAY_AUTH_*: as the environment says, or with the token that is there, or else with a new one for this cluster.

    Raises:
        FileNotFoundError: RAY_AUTH_TOKEN_PATH names no file.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        return {"RAY_AUTH_MODE": mode}
    if os.environ.get("RAY_AUTH_TOKEN"):
        return {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else Path.home() / ".ray" / "auth_token"
    if given and not path.is_file():
        raise FileNotFoundError(f"RAY_AUTH_TOKEN_PATH={given}: no such file")
    if not path.is_file():
        path = folder / "auth_token"
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": str(path.absolute())}


def read_token(environment: Mapping[str, str]) -> str | None:
    """The token that RAY_AUTH_* name, None where there is none."""
    if path := environment.get("RAY_AUTH_TOKEN_PATH"):
        return Path(path).read_text().strip()
    return environment.get("RAY_AUTH_TOKEN")


def is_free(port: int, host: str = "") -> bool:
    """Whether a TCP port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A TCP port that nobody listens on, and that this process was not given lately, whose user may not listen yet."""
    if len(_given) > len(PORTS) // 2:
        _given.clear()
    port = next(port for port in iter(lambda: random.choice(PORTS), None) if port not in _given and is_free(port))
    _given.add(port)
    return port


_given: set[int] = set()
"""Ports that `free_port` has given."""


def reachable(host: str, port: int) -> bool:
    """Whether someone listens there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
