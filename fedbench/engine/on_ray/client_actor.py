"""The client host as a Ray actor, in a class that the driver can name before PyTorch is imported there."""

from typing import TYPE_CHECKING, Any

import ray

from fedbench.engine.on_ray.allocator import keep_freed_memory
from fedbench.system.garbage import no_garbage_search

if TYPE_CHECKING:
    pass


class ClientActor:
    """A client host in its own process, as a Ray actor, with the methods of `ArrivalHost`.

    PyTorch is imported where the actor is created, and not with this module: a run's driver asks for its actors while
    it imports PyTorch itself, so that all processes do so at the same time.
    """

    def __init__(self) -> None:
        keep_freed_memory()
        with no_garbage_search():
            from fedbench.engine.arrivals.client_host import ArrivalHost

        self._host: ArrivalHost = ArrivalHost()

    @property
    def lost_device(self) -> str:
        """Why this process can no longer use its GPU; empty where it can."""
        return self._host.lost_device

    def node(self) -> str:
        """Ray's id of the node that the actor runs on."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def prepare(self, *arguments: Any) -> Any:
        return self._host.prepare(*arguments)

    def train(self, *arguments: Any) -> Any:
        return self._watched("train", *arguments)

    def attach(self, *arguments: Any) -> bool:
        return self._host.attach(*arguments)

    def run_tasks(self, *arguments: Any) -> Any:
        return self._watched("run_tasks", *arguments)

    def probe(self, *arguments: Any) -> Any:
        return self._watched("probe", *arguments)

    def evaluate(self, *arguments: Any) -> Any:
        return self._watched("evaluate", *arguments)

    def score_clients(self, *arguments: Any) -> Any:
        return self._watched("score_clients", *arguments)

    def evaluate_own(self, *arguments: Any) -> Any:
        return self._watched("evaluate_own", *arguments)

    def load(self, *arguments: Any) -> None:
        self._host.load(*arguments)

    def take_state(self, client: int) -> Any:
        return self._host.take_state(client)

    def copy_state(self, client: int) -> Any:
        return self._host.copy_state(client)

    def all_states(self) -> Any:
        return self._host.all_states()

    def put_states(self, *arguments: Any) -> None:
        self._host.put_states(*arguments)

    def peak_memory(self) -> int:
        return self._host.peak_memory()

    def _watched(self, method: str, *arguments: Any) -> Any:
        """What the host's `method` returns.

        Raises:
            LostDevice: it has failed with an error after which this process can no longer use its GPU.
        """
        try:
            return getattr(self._host, method)(*arguments)
        except Exception as error:
            from fedbench.engine.device import explained

            self._host.check_device(error)
            if (clear := explained(error)) is not error:
                raise clear from error
            raise
