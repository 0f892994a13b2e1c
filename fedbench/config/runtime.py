"""The `runtime` section of a configuration."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fedbench.components.base import DECIMAL, WHOLE, Section

SMALLEST_AMOUNT, LARGEST_AMOUNT = 1e-4, 1e9
"""Bounds of the amount of a resource that one actor takes; Ray counts in ten-thousandths."""


LONGEST_RANGE = 100_000
"""Numbers that one range such as 6-25 may stand for."""


def _numbers_in_ranges(value: object) -> object:
    """A single number, or a list of numbers and of ranges such as "6-25", as an ascending list of distinct numbers."""
    numbers: list[object] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, str) and DECIMAL.fullmatch(item):
            item = int(item) if WHOLE.fullmatch(item) else float(item)
        match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", item) if isinstance(item, str) else None
        if match is None:
            numbers.append(item)
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + LONGEST_RANGE:
            raise ValueError(f"{item}: is not a range; write the lower number first, such as 6-25")
        numbers += range(first, last + 1)
    whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
    return sorted(set(whole)) if len(whole) == len(numbers) else numbers


Rounds = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_numbers_in_ranges)]
Clients = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_numbers_in_ranges)]


class RuntimeSection(Section):
    """The place and the manner in which the experiment runs; nothing here changes its result.

    Attributes:
        executor: ray: on a Ray cluster. inline: in this process without Ray, which stops at the first failing client
            with its traceback.
        device: cuda: on GPUs, or not at all. cpu: without GPUs. auto: on GPUs where there are any. A client actor that
            has a share of a GPU never trains without it. GPUs and CPUs round differently, and so do different GPUs.
        address: Address of the Ray cluster to join. null: the cluster that this process belongs to, or else a new one
            on this machine.
        actors: Number of client actors; set actors or clients_per_actor. Both null: as many actors as fit.
        clients_per_actor: Clients of a round that share an actor; set actors or clients_per_actor.
        gpus_per_client: Fraction of a GPU for each client actor. null: equal shares, of which a GPU has as many as it
            takes to seat all actors, and at most 4 (1 with slots) unless actors or clients_per_actor ask for more; 0
            without GPUs.
        slots: Clients of a round that train at the same time in each actor, a step of one after the other. On a GPU
            each has one of PyTorch's 32 streams, and its steps are captured as CUDA graphs, for networks whose steps
            are so short that starting them takes longer than computing them. On a CPU it saves nothing.
        cpus_per_client: CPUs for each client actor.
        resources: Ray's custom resources for each client actor, such as {A100: 0.25}.
        placement: Whether the actors are packed onto few nodes or spread over many.
        server: Where the server is. head: in an actor on the cluster's head. clients: in an actor on the node of the
            first client actor. driver: in the process of the run itself. auto: in that process where it has started Ray
            itself, else on the head.
        combine: Which updates are summed before they are sent to the server: those of an actor's clients, or those of
            a node's actors, so that the server receives one sum from each node.
        wait_for_nodes: Seconds to wait for nodes that an autoscaler may add, where there is no room yet.
        torch_threads: Threads of each actor on a CPU.
        deterministic: Whether PyTorch uses deterministic kernels only, which matters on GPUs.
        max_failed_clients: Number of clients that may fail in a round without ending the run.
        round_timeout: Seconds after which a round is given up.
        max_retries: Number of lost actors or nodes whose work is done again before the run is given up.
        checkpoint_every: Rounds from one checkpoint to the next. null: so often that checkpoints take less than 1 % of
            the time. An interrupted run leaves a checkpoint in any case.
        keep_models: Rounds, counted from 1, before and after which the global model is kept in the folder `kept` of the
            run directory, for `fedbench analyze`: a list of numbers and of ranges, such as [1, 6-25].
        keep_messages: Clients whose messages in these rounds are kept beside the models, as the server reads them:
            what they change, after clipping, noise and compression.
        max_tflop: The clients' work of a whole run, in 10^12 FLOP, above which a run asks on a
            terminal before it starts, and is refused elsewhere.
    """

    executor: Literal["ray", "inline"] = "ray"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    address: str | None = None
    actors: int | None = Field(default=None, ge=1)
    clients_per_actor: int | None = Field(default=None, ge=1)
    gpus_per_client: float | None = Field(default=None, ge=0, le=1)
    slots: int = Field(default=1, ge=1, le=32)
    cpus_per_client: float = Field(default=1.0, ge=SMALLEST_AMOUNT, le=LARGEST_AMOUNT)
    resources: dict[str, Annotated[float, Field(ge=SMALLEST_AMOUNT, le=LARGEST_AMOUNT)]] = Field(default={})
    placement: Literal["pack", "spread"] = "pack"
    server: Literal["auto", "driver", "head", "clients"] = "auto"
    combine: Literal["actor", "node"] = "actor"
    wait_for_nodes: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    torch_threads: int = Field(default=1, ge=1, le=1024)
    deterministic: bool = True
    max_failed_clients: int = Field(default=0, ge=0)
    round_timeout: float = Field(default=3600.0, gt=0)
    max_retries: int = Field(default=3, ge=0)
    checkpoint_every: int | None = Field(default=None, ge=1)
    keep_models: Rounds = ()
    keep_messages: Clients = ()
    max_tflop: float = Field(default=1e7, gt=0)

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if self.actors is not None and self.clients_per_actor is not None:
            raise ValueError(f"actors={self.actors} and clients_per_actor={self.clients_per_actor}: set one of the two")
        if self.gpus_per_client is not None and 0 < self.gpus_per_client < SMALLEST_AMOUNT:
            raise ValueError(f"gpus_per_client={self.gpus_per_client}: must be 0, or at least {SMALLEST_AMOUNT:g}")
        if self.device == "cpu" and self.gpus_per_client:
            raise ValueError(f"gpus_per_client={self.gpus_per_client} has no effect with device=cpu; leave one out")
        if self.device == "cuda" and self.gpus_per_client == 0:
            raise ValueError("device=cuda with gpus_per_client=0: give the actors a share of a GPU; leave one out")
        if builtin := [name for name in self.resources if name in ("CPU", "GPU")]:
            raise ValueError(f"resources.{builtin[0]}: has an option of its own; set {builtin[0].lower()}s_per_client")
        if self.keep_messages and not self.keep_models:
            raise ValueError(
                f"keep_messages={list(self.keep_messages)}: has no effect without keep_models, which names the rounds"
            )
        if self.executor == "inline":
            for key in (
                "address",
                "actors",
                "clients_per_actor",
                "gpus_per_client",
                "cpus_per_client",
                "resources",
                "placement",
                "server",
                "combine",
                "wait_for_nodes",
                "round_timeout",
                "max_retries",
            ):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key}={getattr(self, key)} has no effect with executor=inline; leave it out")
        return self
