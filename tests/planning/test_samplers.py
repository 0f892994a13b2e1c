"""Samplers against statements of their own: who is drawn how often, and what a run, its costs and a resumed run do."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from broken_runs import BreakAfter, Broken
from small import config

from fedbench import ClientHistory, ConfigError, ExperimentConfig, Sampler, resume
from fedbench.components.catalogue import make_component
from fedbench.experiment.estimate import estimate
from fedbench.experiment.run import run
from fedbench.planning.samplers import Oort, Uniform, Weighted, draw_cohort

SIZES = (50, 10, 20, 70, 30, 20)


class Fixed(Sampler):
    """Answers what it was told to."""

    name: str = "test_samplers:Fixed"
    answer: ClassVar[Any] = ()

    def draw(
        self, round_index: int, size: int, sizes: Sequence[int], seed: int, history: ClientHistory
    ) -> Sequence[int]:
        return self.answer


def known(losses: Sequence[float], rounds: Sequence[int]) -> ClientHistory:
    """What clients 0, 1, ... have reported."""
    history = ClientHistory(len(losses))
    for client, (loss, last) in enumerate(zip(losses, rounds, strict=True)):
        if last >= 0:
            history.reported(last, {client: loss})
    return history


def test_uniform_is_the_draw_of_numpys_choice_from_the_seed_and_the_round() -> None:
    from fedbench.randomness import generator

    for index in range(5):
        by_hand = sorted(generator(3, "cohort", index).choice(6, 4, replace=False).tolist())
        assert draw_cohort(Uniform(), index, 4, SIZES, seed=3) == tuple(by_hand)


def test_a_weighted_draw_takes_each_client_in_exact_proportion_to_its_samples() -> None:
    """Over many rounds client i takes part in m n_i / n of them, and the mean update has no bias."""
    rounds, places = 20_000, 2
    counts = Counter(client for r in range(rounds) for client in draw_cohort(Weighted(), r, places, SIZES, seed=0))
    expected = places * np.array(SIZES) / sum(SIZES)
    observed = np.array([counts[client] for client in range(len(SIZES))]) / rounds
    np.testing.assert_allclose(observed, expected, atol=4 * np.sqrt(0.25 / rounds))


def test_a_client_with_more_than_a_places_share_of_the_samples_always_takes_part() -> None:
    sizes = (1000, 10, 10, 10, 100)
    cohorts = [draw_cohort(Weighted(), r, 3, sizes, seed=1) for r in range(400)]
    assert all({0, 4} <= set(cohort) for cohort in cohorts)
    assert Counter(client for cohort in cohorts for client in cohort)[1] == pytest.approx(400 / 3, abs=40)


def test_oort_takes_the_best_utilities_where_nothing_is_left_to_chance() -> None:
    """With cutoff=1 and no exploration the participants are those with the largest utilities, computed by hand."""
    losses, last = np.array([0.5, 2.0, 1.0, 0.2, 1.5, 0.1]), np.array([0, 1, 4, 3, 2, 0])
    u = np.minimum(SIZES * losses, np.quantile(SIZES * losses, 0.9))
    utility = (u - u.min()) / (u.max() - u.min()) + np.sqrt(0.3 * np.log(6) / (last + 1))
    sampler = Oort(exploration=0, exploration_min=0, cutoff=1, clip=0.9, staleness=0.3)
    drawn = draw_cohort(sampler, 5, 3, SIZES, 0, known(losses.tolist(), last.tolist()))
    assert drawn == tuple(sorted(np.argsort(-utility)[:3].tolist()))


def test_oort_explores_the_share_that_has_decayed() -> None:
    """Of 20 participants floor(20 max(0.2, 0.9 0.98^R)) never took part before; all are new in the first round."""
    sizes, half = (10,) * 100, [0 if client < 50 else -1 for client in range(100)]
    history = known([1.0] * 100, half)
    for index in (1, 10, 40, 200):
        drawn = draw_cohort(Oort(), index, 20, sizes, 0, history)
        assert sum(client >= 50 for client in drawn) == int(20 * max(0.2, 0.9 * 0.98 ** (index + 1)))
    assert len(draw_cohort(Oort(), 0, 20, sizes, 0)) == 20


def test_oort_fills_up_from_the_other_kind_where_one_runs_out() -> None:
    only_known = known([1.0] * 6, [0] * 6)
    assert len(draw_cohort(Oort(exploration_min=1.0), 3, 4, SIZES, 0, only_known)) == 4
    one_known = known([1.0] * 6, [0, -1, -1, -1, -1, -1])
    assert 0 in draw_cohort(Oort(exploration=0, exploration_min=0), 3, 4, SIZES, 0, one_known)


def small(*overrides: str) -> ExperimentConfig:
    skewed = ("data.partition=quantity", "data.partition.alpha=1.0", "participation.clients_per_round=2")
    return config("rounds=4", "schedule=full", "runtime.executor=inline", *skewed, *overrides)


pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


def cohorts(result: Any) -> list[list[int]]:
    """The participants of each round."""
    rows = pq.read_table(result.directory / "clients.parquet", columns=["round", "client"]).to_pylist()
    return [[row["client"] for row in rows if row["round"] == r] for r in range(result.summary["rounds"])]


def test_a_run_draws_by_the_losses_that_its_clients_reported() -> None:
    """Of one minibatch a round the root mean square is the mean loss that clients.parquet has."""
    options = ("participation.sampler=oort", "local.epochs=null", "local.steps=1")
    result = run(small(*options))
    rows = pq.read_table(result.directory / "clients.parquet").to_pylist()
    sizes = [0] * 6
    for row in rows:
        sizes[row["client"]] = row["samples"]
    history = ClientHistory(6)
    for index, cohort in enumerate(cohorts(result)):
        # Sizes of clients that were never drawn change nothing.
        assert tuple(cohort) == draw_cohort(Oort(), index, 2, sizes, 0, history)
        history.reported(index, {row["client"]: row["train_loss"] for row in rows if row["round"] == index})


def test_a_sampler_with_memory_goes_on_from_a_checkpoint() -> None:
    options = ("participation.sampler=oort", "participation.sampler.exploration=0.5", "runtime.checkpoint_every=1")
    whole = run(small(*options))
    with pytest.raises(Broken):
        run(small(*options, "output.directory=broken"), [BreakAfter(2)])
    resumed = resume("broken")
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    assert cohorts(resumed) == cohorts(whole)


def test_the_costs_of_weighted_draws_are_foreseen() -> None:
    weighted = small("participation.sampler=weighted", "algorithm.weighting=uniform")
    foreseen, result = estimate(weighted), run(weighted)
    for key in ("uplink_bytes", "downlink_bytes", "client_flops"):
        assert result.history[key].to_pylist() == [getattr(costs, key) for costs in foreseen.per_round], key
    assert not any("count twice" in warning for warning in result.warnings)
    assert "follows what clients report" in estimate(small("participation.sampler=oort")).remark


def test_a_mean_that_counts_large_clients_twice_is_pointed_out() -> None:
    (warning,) = (w for w in run(small("participation.sampler=weighted", "rounds=1")).warnings if "count twice" in w)
    assert warning.endswith("set algorithm.weighting=uniform")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ([0, 9], "client 9; allowed: 0 to 5"),
        ([1, 1], "1 different clients among 2; 2 are needed, each once"),
        ([1.0, 2.0], "a sequence of whole numbers is needed"),
        (None, "a sequence of whole numbers is needed"),
    ],
)
def test_a_sampler_that_breaks_its_promise_is_refused(answer: Any, problem: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(Fixed, "answer", answer)
    with pytest.raises(ConfigError, match=rf"participation.sampler=test_samplers:Fixed: draw\(0, 2, ...\).*{problem}"):
        draw_cohort(Fixed(), 0, 2, SIZES, 0)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["participation.sampler=oort"], "has no effect where all 10 clients take part"),
        (["participation.sampler=ort", "participation.clients_per_round=2"], "did you mean 'oort'"),
    ],
)
def test_a_sampler_without_effect_or_unknown_is_refused(overrides: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ExperimentConfig.load(None, overrides)


def test_asynchronous_runs_and_noise_refuse_it_by_name() -> None:
    with pytest.raises(ConfigError, match=r"participation.sampler=oort: has no effect with algorithm.name=ormo"):
        run(ExperimentConfig.load("ormo-digits", ["participation.sampler=oort", "tracking.enabled=false"]))
    noise = ("update.clip_norm=1", "update.noise_multiplier=1", "algorithm.weighting=uniform", "local.batchnorm=local")
    with pytest.raises(ConfigError, match=r"participation.sampler=weighted does not draw all clients alike"):
        run(small(*noise, "participation.sampler=weighted"))


def test_a_bare_name_in_yaml_is_the_sampler_of_that_name() -> None:
    loaded = ExperimentConfig.load(None, ["participation={clients_per_round: 2, sampler: uniform}"])
    assert loaded.participation.sampler == make_component("sampler", Sampler, "uniform") == Uniform()
