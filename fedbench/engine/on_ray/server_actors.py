"""The servers as Ray actors. Nothing here imports PyTorch, which would take longer than the rest of their start."""

from typing import Any

from fedbench.engine.arrivals.server import ArrivalServer
from fedbench.engine.rounds.pool_server import PoolServer
from fedbench.engine.rounds.server import Server


class ReusableServer:
    """Mixin for a server actor whose process serves several experiments one after the other."""

    def reset(self, spec: Any) -> None:
        """Discard all state and initialise the server from `spec` again."""
        vars(self).clear()
        self.__init__(spec)  # type: ignore[misc]


class ServerActor(ReusableServer, Server):
    """The server of a synchronous run in its own process, as a Ray actor."""


class PoolServerActor(ReusableServer, PoolServer):
    """A server with a pool of models in its own process, as a Ray actor."""


class ArrivalServerActor(ReusableServer, ArrivalServer):
    """The server of an asynchronous run in its own process, as a Ray actor."""
