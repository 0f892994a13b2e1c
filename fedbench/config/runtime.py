"""The `runtime` section of a configuration: where and how an experiment runs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedbench.components.base import Section


class RuntimeSection(Section):
    """Where and how it runs; nothing here changes the result.

    Attributes:
        executor: ray, or inline: a plain loop in this process, which stops at the failing client.
        address: a Ray cluster to join; None: the one this process belongs to, or else a local one is started.
        actors: client actors; or
        clients_per_actor: clients of a round per actor; None: as many actors as fit.
        gpus_per_client: fraction of a GPU for each client actor; None: none without GPUs, 0.25 with.
        cpus_per_client: CPUs for each client actor.
        resources: of a node's custom resources, what each client actor takes, e.g. {A100: 0.25}.
        placement: pack the actors onto few nodes, or spread them over many.
        server: where the server's actor is: on the cluster's head, or next to the first client actor.
        combine: actor: each sends the sum over its own clients; node: those of a node send one sum together, so that
            the server receives nodes x bytes.
        wait_for_nodes: seconds to wait for nodes that an autoscaler may add, where there is no room yet.
        torch_threads: threads of each actor on a CPU.
        deterministic: deterministic kernels only (matters on GPUs).
        max_failed_clients: failures of clients that a round survives.
        round_timeout: seconds after which a round is given up.
        max_retries: losses of actors or nodes that a run survives by doing again what was lost.
        checkpoint_every: rounds between two checkpoints; None: by time, so that they cost less than 1 %; an
            interrupted run leaves one in any case.
    """

    executor: Literal["ray", "inline"] = "ray"
    address: str | None = None
    actors: int | None = Field(default=None, ge=1)
    clients_per_actor: int | None = Field(default=None, ge=1)
    gpus_per_client: float | None = Field(default=None, ge=0, le=1)
    cpus_per_client: float = Field(default=1.0, gt=0)
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default={})
    placement: Literal["pack", "spread"] = "pack"
    server: Literal["head", "clients"] = "head"
    combine: Literal["actor", "node"] = "actor"
    wait_for_nodes: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    torch_threads: int = Field(default=1, ge=1)
    deterministic: bool = True
    max_failed_clients: int = Field(default=0, ge=0)
    round_timeout: float = Field(default=3600.0, gt=0)
    max_retries: int = Field(default=3, ge=0)
    checkpoint_every: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if self.actors is not None and self.clients_per_actor is not None:
            raise ValueError(f"actors={self.actors} and clients_per_actor={self.clients_per_actor}: set one of the two")
        if own := [name for name in self.resources if name in ("CPU", "GPU")]:
            raise ValueError(f"resources.{own[0]}: has an option of its own; set {own[0].lower()}s_per_client")
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
