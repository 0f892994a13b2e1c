"""Byzantine clients: who attacks, what each attack makes of a message or of labels, and what is recorded of it."""

from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from small import asynchronous, config

from fedbench.errors import ConfigError
from fedbench.experiment.contracts import check_attack
from fedbench.experiment.estimate import estimate
from fedbench.experiment.run import Result, run
from fedbench.planning.participation import ParticipationSection
from fedbench.protocol.attacks import Attack, LabelFlip, Noise, Scaled, SignFlip, attacked
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PartTable
from fedbench.records.kept import load_message, load_model

LAYOUT = ParameterLayout.build([("first", {"a": (3,)}), ("second", {"b": (2,)})], statistics=[("mean", 0, (2,))])
TABLE = PartTable(LAYOUT, statistics=True, channels=("c",))
PARTS = tuple(range(len(TABLE.parts)))
START = np.arange(12, dtype=np.float32)
UPDATE = np.array([1, -2, 3, 0.5, 4, 10, 20, -1, 2, -3, 5, 6], np.float32)
RNG = np.random.default_rng

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


def sent(attack: Attack, sign: float = 1.0) -> np.ndarray:
    """The change of the message that an attack makes of `UPDATE`."""
    start = START if sign > 0 else np.zeros(12, np.float32)
    return attacked(attack, TABLE, PARTS, start + np.float32(sign) * UPDATE, start, RNG(0), sign) - start


def expected(factor: float, statistics: bool) -> np.ndarray:
    """The parameters and the channel multiplied; the two statistics, after the five parameters, only if they are."""
    factors = np.full(12, factor, np.float32)
    factors[5:7] = factor if statistics else 1
    return factors * UPDATE


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize(("kind", "sign"), [(SignFlip, -1), (Scaled, 1)])
def test_updates_are_turned_round_or_lengthened(kind: type[Attack], sign: int, statistics: bool) -> None:
    change = sent(kind(factor=4.0, statistics=statistics))
    np.testing.assert_allclose(change, expected(sign * 4.0, statistics), rtol=1e-6)


@pytest.mark.parametrize("kind", [SignFlip, Scaled, Noise])
@pytest.mark.filterwarnings("error")
def test_an_update_beyond_float32_is_infinite_without_a_warning(kind: Any) -> None:
    assert not np.isfinite(sent(kind(factor=1e300))).all()


def test_noise_has_the_size_that_is_asked_for_and_nothing_of_the_update() -> None:
    update = RNG(1).normal(size=100_000).astype(np.float32) * 3
    noise = Noise(factor=2.0).update(update, RNG(0))
    assert noise.std() == pytest.approx(2 * 3, rel=0.02)
    assert abs(np.corrcoef(noise, update)[0, 1]) < 0.02


def test_a_delta_of_the_other_sign_is_attacked_alike() -> None:
    np.testing.assert_allclose(sent(SignFlip(factor=4.0), sign=-1.0), -expected(-4.0, False), rtol=1e-6)


def test_labels_become_the_opposite_ones() -> None:
    assert LabelFlip().labels(np.array([0, 3, 9]), 10, RNG(0)).tolist() == [9, 6, 0]


def test_the_attackers_are_drawn_by_the_seed_for_the_whole_run() -> None:
    section = ParticipationSection(byzantine={"name": "noise", "share": 0.3})
    draws = [section.attackers(10, seed) for seed in range(50)]
    assert {len(drawn) for drawn in draws} == {3}
    assert len(set(draws)) > 20
    assert draws[7] == section.attackers(10, 7)
    assert ParticipationSection().attackers(10, 0) == frozenset()


INLINE = ("runtime.executor=inline",)
SMALL = (
    "data.samples_per_client=40", "rounds=2", "schedule=full", "local.optimizer=sgd", "local.optimizer.lr=0.1",
    *INLINE, "runtime.keep_models=[1,2]", "runtime.keep_messages=[0-5]",
)  # fmt: skip


def attacking(name: str, **parameters: object) -> tuple[str, ...]:
    """The overrides of an attack."""
    key = "participation.byzantine"
    return (f"{key}={name}", *(f"{key}.{parameter}={value}" for parameter, value in parameters.items()))


def recorded_attackers(result: Result) -> set[int]:
    rows = pq.read_table(result.directory / "clients.parquet").to_pylist()
    return {row["client"] for row in rows if row["byzantine"]}


def message(result: Result, number: int, client: int) -> dict[str, np.ndarray]:
    return dict(load_message(result.directory, number, client)[0])


def test_in_a_run_attackers_send_something_else_and_all_others_what_they_would_have_sent() -> None:
    attack = (
        "participation.byzantine=sign-flip",
        "participation.byzantine.share=0.3",
        "participation.byzantine.factor=3",
    )
    honest, harmed = run(config(*SMALL)), run(config(*SMALL, *attack))
    attackers = config(*SMALL, *attack).participation.attackers(6, 0)
    assert recorded_attackers(harmed) == attackers
    assert len(attackers) == 2
    assert recorded_attackers(honest) == set()
    for client in range(6):
        before, after = message(honest, 1, client), message(harmed, 1, client)
        for name in before:
            flipped = client in attackers and "running" not in name
            np.testing.assert_allclose(after[name], (-3 if flipped else 1) * before[name], rtol=1e-4, atol=1e-6)
    assert harmed.history["train_loss"][0] == honest.history["train_loss"][0], "what attackers train on is honest"
    for column in ("uplink_bytes", "downlink_bytes", "client_flops"):
        foreseen = [getattr(costs, column) for costs in estimate(config(*SMALL, *attack)).per_round]
        assert harmed.history[column].to_pylist() == honest.history[column].to_pylist() == foreseen


def test_an_attackers_update_is_clipped_and_compressed_like_any_other() -> None:
    attack = (
        "participation.byzantine=scaled",
        "participation.byzantine.share=1.0",
        "participation.byzantine.factor=100",
    )
    clipped = run(config(*SMALL, *attack, "update.clip_norm=0.01", "rounds=1", "runtime.keep_models=[1]"))
    for client in range(6):
        trained = [values for name, values in message(clipped, 1, client).items() if "running" not in name]
        assert np.sqrt(sum(np.sum(values.astype(float) ** 2) for values in trained)) == pytest.approx(0.01, rel=1e-3)


def test_flipped_labels_are_those_of_training_on_other_data() -> None:
    attack = (*attacking("label-flip", share=1.0), "evaluation.per_client=true")
    flipped = run(config(*SMALL, *attack, "output.directory=flipped"))
    other = run(config(*SMALL, "data.dataset=flipped_digits:Flipped", "output.directory=other"))
    assert flipped.summary["model_sha256"] == other.summary["model_sha256"]
    assert flipped.history["train_loss"].equals(other.history["train_loss"])
    local = pq.read_table(flipped.directory / "clients.parquet")["local_accuracy"].to_pylist()
    assert max(local) < 0.5, "scored on the labels that are true"


def test_only_the_labels_of_the_attackers_own_rows_are_flipped() -> None:
    attack = attacking("label-flip", share=0.3)
    honest, harmed = run(config(*SMALL)), run(config(*SMALL, *attack))
    attackers = recorded_attackers(harmed)
    for client in range(6):
        before, after = message(honest, 1, client), message(harmed, 1, client)
        same = all(np.array_equal(after[name], values) for name, values in before.items())
        assert same == (client not in attackers)


def test_an_asynchronous_worker_that_attacks_sends_the_opposite_gradient() -> None:
    one = (
        "algorithm=asgd",
        "rounds=1",
        "delays.arrivals_per_round=1",
        "runtime.executor=inline",
        "runtime.keep_models=[1]",
    )
    honest = run(asynchronous(*one))
    harmed = run(asynchronous(*one, *attacking("sign-flip", share=1.0)))
    start = load_model(honest.directory, 0)
    for name, before in start.items():
        if "running" in name or "tracked" in name:
            continue
        changes = [load_model(result.directory, 1)[name].astype(float) - before for result in (honest, harmed)]
        np.testing.assert_allclose(changes[1], -changes[0], atol=1e-6)
    assert recorded_attackers(harmed)


class Odd(Attack):
    """Returns what it was told to."""

    name: str = "test_attacks:Odd"
    answer: ClassVar[Any] = None

    def update(self, update: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.answer


class OddLabels(Attack):
    """Gives rows labels that there are not."""

    name: str = "test_attacks:OddLabels"

    def labels(self, labels: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
        return labels + 1


@pytest.mark.parametrize(
    ("answer", "shown"), [(None, "NoneType"), (np.zeros(2), r"float64 \[2\]"), (np.zeros(3, int), r"int64 \[3\]")]
)
def test_an_attack_that_breaks_its_promise_is_refused(answer: Any, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "answer", answer)
    with pytest.raises(ConfigError, match=rf"byzantine.name=test_attacks:Odd: update returned {shown}, not as it was"):
        check_attack(Odd(), 10)
    with pytest.raises(ConfigError, match=r"OddLabels: labels returned 1 to 10; allowed: 0 to 9"):
        check_attack(OddLabels(), 10)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ("participation.byzantine=sign-flip", "participation.byzantine.share=0.05"),
            "share=0.05: of 6 clients that is",
        ),
        (("participation.byzantine=sign_flop",), "did you mean 'sign-flip'"),
        (
            ("participation.byzantine=label-flip", "participation.byzantine.factor=2"),
            "participation.byzantine.factor: un",
        ),
    ],
)
def test_attacks_without_effect_or_unknown_are_refused(overrides: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(*overrides)


def test_an_asynchronous_attack_on_statistics_is_refused() -> None:
    attack = (
        "participation.byzantine=noise",
        "participation.byzantine.share=0.5",
        "participation.byzantine.statistics=true",
    )
    with pytest.raises(ConfigError, match=r"byzantine.statistics=true: has no effect with algorithm.name=ormo"):
        run(asynchronous(*attack, *INLINE))


def test_who_sends_no_layers_attacks_nothing() -> None:
    rng, nothing = np.random.default_rng(0), np.empty(0, np.float32)
    assert attacked(SignFlip(), TABLE, (), nothing, nothing, rng).size == 0
