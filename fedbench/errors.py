"""The errors that fedbench raises on purpose: each message is one line that a user can act on."""

import re


class FedbenchError(Exception):
    """Base of every deliberate error. `exit_code` is what the command line exits with."""

    exit_code = 2

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    r"""A text in one line: line breaks are blanks, other characters that nobody sees are written as escapes.

    >>> one_line("lr=a\n  b\x00: must be a number")
    'lr=a b\\x00: must be a number'
    """
    joined = re.sub(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", text)
    return re.sub("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]", lambda found: repr(found[0])[1:-1], joined)


class ConfigError(FedbenchError):
    """A configuration that cannot be run: names the key, the value and what is allowed."""


class TooCostly(ConfigError):
    """A run whose clients would compute for longer than the limit allows.

    Args:
        message: one line.
        tflop: the work of all clients, in 10^12 FLOP.
        most: `runtime.max_tflop`.
    """

    def __init__(self, message: str, tflop: float, most: float) -> None:
        super().__init__(message)
        self.tflop = tflop
        self.most = most


class DataError(FedbenchError):
    """Data that is missing, damaged or of another kind than asked for."""


class ModelError(FedbenchError):
    """A model that cannot be built for the task, or has no usable layer groups."""


class RunError(FedbenchError):
    """A run that started and could not go on; it is marked FAILED wherever it is recorded."""

    exit_code = 1


class UnusableCheckpoint(RunError):
    """A checkpoint whose files are whole and whose state does not fit the run; the one before it is used."""


class LostActor(RunError):
    """An actor, or what it held, is gone: what the run did since its last checkpoint can be done again."""


class LostDevice(LostActor):
    """The GPU of a process no longer computes: the process has to be replaced, and its work done again."""


class HeadGone(RunError):
    """Ray no longer answers: the head of the cluster, or the daemon of this machine. What the run has written stays."""


class HangingClients(LostActor):
    """Clients that did not come back long after their deadline; their actor was ended.

    Args:
        round_index: the round, from 0.
        clients: those whom the actor had to train.
    """

    def __init__(self, round_index: int, clients: tuple[int, ...]) -> None:
        super().__init__(f"round {round_index + 1}: clients {list(clients)} did not come back from their training")
        self.round_index = round_index
        self.clients = clients


class ClientFailure(RunError):
    """A client's work raised an exception. Carries the client's own traceback.

    Args:
        client: the client's id.
        round_index: the round, from 0.
        message: the exception's type and text, one line.
        traceback: the traceback as formatted where it happened.
    """

    def __init__(self, client: int, round_index: int, message: str, traceback: str) -> None:
        super().__init__(f"client {client} failed in round {round_index + 1}: {message}")
        self.client = client
        self.round_index = round_index
        self.message = message
        self.traceback = traceback

    def __reduce__(self) -> tuple[type, tuple[int, int, str, str]]:
        return type(self), (self.client, self.round_index, self.message, self.traceback)
