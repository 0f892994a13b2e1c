"""The server of a run as its executor reaches it: in an actor of its own, or in the process of the run itself."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import ray

from fedbench.errors import FedbenchError, RunError

Wait = Callable[[Any], Any]
"""Waits for the results of one reference, or of a list of them; raises `FedbenchError` where there are none."""

Put = Callable[[Any], Any]
"""Puts a value into Ray's object store, to which it gives back a reference; raises `FedbenchError` where it cannot."""


class ServerLink(ABC):
    """A connection to a server, which does what it is asked in the order of the calls.

    Arguments may be references to what client actors have returned; the server is given the values.
    """

    @abstractmethod
    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method returns."""

    @abstractmethod
    def publish(self, method: str, *arguments: Any) -> Any:
        """Reference to what the method returns, for client actors."""

    @abstractmethod
    def publish_first(self, method: str, *arguments: Any) -> Any:
        """Reference to the first of the two values that the method returns; `settle` returns the second."""

    @abstractmethod
    def tell(self, method: str, *arguments: Any) -> None:
        """Have the method called; `settle` returns what it returned."""

    @abstractmethod
    def settle(self) -> list[Any]:
        """Wait for all that `tell` and `publish_first` have left to be done, and return its results, in order.

        Raises:
            FedbenchError: a call failed.
        """


class ServerInActor(ServerLink):
    """A server in an actor, which goes on with its calls while the run's process does other things.

    Attributes:
        actor: handle of the actor.
    """

    def __init__(self, actor: Any, wait: Wait) -> None:
        self.actor = actor
        self._wait = wait
        self._told: list[Any] = []

    def ask(self, method: str, *arguments: Any) -> Any:
        return self._wait(self.publish(method, *arguments))

    def publish(self, method: str, *arguments: Any) -> Any:
        return getattr(self.actor, method).remote(*arguments)

    def publish_first(self, method: str, *arguments: Any) -> Any:
        first, second = getattr(self.actor, method).options(num_returns=2).remote(*arguments)
        self._told.append(second)
        return first

    def tell(self, method: str, *arguments: Any) -> None:
        self._told.append(self.publish(method, *arguments))

    def settle(self) -> list[Any]:
        told, self._told = self._told, []
        results: list[Any] = self._wait(told)
        return results


class ServerHere(ServerLink):
    """A server in the process of the run, which spares a process, and calls and copies between the two."""

    def __init__(self, kind: type, spec: Any, wait: Wait, put: Put) -> None:
        """Create the server.

        Args:
            kind: its class.
            spec: argument of its constructor; the server is given a copy, as one in an actor is.
            wait, put: how to wait for references, and how to make them.
        """
        # The arrays of the copy are the same memory, which the server can read only, as with what Ray brings.
        buffers: list[pickle.PickleBuffer] = []
        pickler: Any = ray.cloudpickle
        data = pickler.dumps(spec, protocol=5, buffer_callback=buffers.append)
        self._server: Any = kind(pickler.loads(data, buffers=[buffer.raw().toreadonly() for buffer in buffers]))
        self._wait, self._put = wait, put
        self._told: list[Any] = []

    def ask(self, method: str, *arguments: Any) -> Any:
        references = [value for value in arguments if isinstance(value, ray.ObjectRef)]
        values = iter(self._wait(references) if references else ())
        given = [next(values) if isinstance(value, ray.ObjectRef) else value for value in arguments]
        try:
            return getattr(self._server, method)(*given)
        except FedbenchError:
            raise
        except Exception as error:
            raise RunError(f"the server failed: {type(error).__name__}: {error}") from error

    def publish(self, method: str, *arguments: Any) -> Any:
        return self._put(self.ask(method, *arguments))

    def publish_first(self, method: str, *arguments: Any) -> Any:
        first, second = self.ask(method, *arguments)
        self._told.append(second)
        return self._put(first)

    def tell(self, method: str, *arguments: Any) -> None:
        self._told.append(self.ask(method, *arguments))

    def settle(self) -> list[Any]:
        told, self._told = self._told, []
        return told
