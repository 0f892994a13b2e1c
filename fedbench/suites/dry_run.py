"""What a suite would run, and at which cost, without training."""

from dataclasses import dataclass
from typing import Any

from fedbench.accounting.totals import Costs
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import FedbenchError
from fedbench.experiment.estimate import estimate
from fedbench.suites.earlier_runs import Recorded
from fedbench.suites.plan import Plan

FORESEEN_ROUNDS = 2
"""Rounds of an asynchronous run whose arrivals are gone through one by one; the others are taken to be like them."""


@dataclass(frozen=True)
class Foreseen:
    """What one configuration costs for each of its seeds.

    Attributes:
        label: what its runs are, for people.
        seeds: the seeds that it is run with.
        recorded: the seeds whose runs are recorded already.
        broken_off: the seeds whose runs will be gone on with.
        rounds: the number of rounds of one run; None: not known.
        costs: the costs of one run, as estimated for the first seed; None: they cannot be told.
        remark: why they cannot be told, or what they rest on.
    """

    label: str
    seeds: tuple[int, ...]
    recorded: tuple[int, ...]
    broken_off: tuple[int, ...]
    rounds: int | None
    costs: Costs | None
    remark: str

    @property
    def open(self) -> int:
        """The number of runs that are still to be run, broken-off ones among them."""
        return len(self.seeds) - len(self.recorded)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values; bytes, FLOPs and the paper's figures of one run."""
        return {
            "label": self.label,
            "seeds": list(self.seeds),
            "recorded": list(self.recorded),
            "broken_off": list(self.broken_off),
            "rounds": self.rounds,
            **(self.costs.to_mapping() if self.costs else dict.fromkeys(Costs().to_mapping())),
            "remark": self.remark,
        }


def foresee(plan: Plan, recorded: dict[str, Recorded]) -> list[Foreseen]:
    """The costs of each configuration of a plan, in the order in which it comes up."""
    seeds: dict[str, dict[int, str]] = {}
    for digest, run in plan.runs.items():
        unseeded = run.config.model_copy(update={"seed": 0}).digest()
        seeds.setdefault(unseeded, {})[run.config.seed] = digest
    foreseen = []
    for digests in seeds.values():
        run = plan.runs[next(iter(digests.values()))]
        rounds, costs, remark = _cost(run.config)
        done = tuple(seed for seed, digest in digests.items() if digest in recorded and recorded[digest].finished)
        broken_off = tuple(seed for seed, digest in digests.items() if digest in recorded and seed not in done)
        foreseen.append(Foreseen(run.label, tuple(digests), done, broken_off, rounds, costs, remark))
    return foreseen


def total_open(foreseen: list[Foreseen]) -> Costs | None:
    """The costs of all runs that are still to be run; None where one of them is not known."""
    if any(configuration.costs is None and configuration.open for configuration in foreseen):
        return None
    whole = Costs()
    for configuration in foreseen:
        for _ in range(configuration.open):
            whole += configuration.costs or Costs()
    return whole


def _cost(config: ExperimentConfig) -> tuple[int | None, Costs | None, str]:
    """(rounds, costs of the run, remark)."""
    rounds = config.rounds
    shortened = (
        isinstance(rounds, int)
        and rounds > FORESEEN_ROUNDS
        and config.asynchronous
        and config.schedule.name == "full"
        and config.delays.clock == "virtual"
    )
    try:
        if not shortened or not isinstance(rounds, int):
            known = estimate(config)
            return len(known.per_round), known.total, known.remark
        known = estimate(config.model_copy(update={"rounds": FORESEEN_ROUNDS}))
    except FedbenchError as error:
        return None, None, str(error)
    share = rounds / FORESEEN_ROUNDS
    part = known.total
    costs = Costs(
        round(part.uplink_bytes * share),
        round(part.downlink_bytes * share),
        round(part.client_flops * share),
        None if part.paper_comm_gb is None else part.paper_comm_gb * share,
        part.paper_comp_tflop * share,
    )
    remark = f"from its first {FORESEEN_ROUNDS} rounds"
    return rounds, costs, f"{known.remark}; {remark}" if known.remark else remark
