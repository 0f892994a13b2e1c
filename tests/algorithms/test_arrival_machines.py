"""What every asynchronous method's machine promises: snapshots, one dtype, elementwise rules, checked parameters."""

import math

import numpy as np
import pytest

from fedbench.algorithms.arrivals import ArrivalRule, AsyncAlgorithm
from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.crossed import asynchronous_part
from fedbench.components.catalogue import BUILTIN, component_class, make_component
from fedbench.errors import ConfigError

METHODS: list[dict[str, object]] = [
    {"name": "asgd"},
    {"name": "asgdm"},
    {"name": "shifted-momentum"},
    {"name": "smega2"},
    {"name": "dana-zero"},
    {"name": "ormo"},
    {"name": "ormo-vanilla"},
    {"name": "ormo-da", "smoothness": 2.0},
    {"name": "ormo-da-free"},
    {"name": "ordered-adam"},
    {"name": "fedasync"},
    {"name": "fedasync", "staleness": "hinge", "a": 2.0, "b": 1},
    {"name": "fedbuff", "buffer_size": 3},
    {"name": "fadas", "buffer_size": 3},
    {"name": "ca2fl", "buffer_size": 3},
    {"name": "ssgdm"},
    {"name": "ssgd-nesterov"},
]
SIZE = 37
every_method = pytest.mark.parametrize("parameters", METHODS, ids=str)


def make(parameters: dict[str, object]) -> AsyncAlgorithm:
    method = make_component("algorithm", Algorithm, parameters)
    assert isinstance(method, AsyncAlgorithm)
    assert asynchronous_part(method) is method
    return method


def updates(count: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, SIZE)).astype(dtype)


def order(workers: int, count: int) -> list[int]:
    """One worker starves for most of the time."""
    rng = np.random.default_rng(1)
    return [0 if t % 25 == 24 else int(rng.integers(1, workers)) for t in range(count)]


def run(machine: ArrivalRule, answers: list[int], given: np.ndarray, lr: float = 0.1) -> list[np.ndarray]:
    """What is sent, one after the other."""
    held = [machine.pull(worker) for worker in range(machine.workers)]
    sent = [array for array, _ in held]
    for worker, update in zip(answers, given, strict=True):
        held[worker] = machine.push(update, held[worker][1], worker, lr)
        sent.append(held[worker][0])
    return sent


def test_every_asynchronous_method_is_here() -> None:
    built_in = {name for name in BUILTIN["algorithm"] if issubclass(component_class("algorithm", name), AsyncAlgorithm)}
    assert built_in == {one["name"] for one in METHODS}


@every_method
def test_what_was_handed_out_never_changes(parameters: dict[str, object]) -> None:
    start, given = updates(1)[0], updates(60)
    machine = make(parameters).machine(start, workers=4)
    held = [machine.pull(worker) for worker in range(4)]
    handed = [(array, array.copy()) for array, _ in held] + [(machine.parameters, machine.parameters.copy())]
    for worker, update in zip(order(4, 60), given, strict=True):
        held[worker] = machine.push(update, held[worker][1], worker, 0.1)
        handed += [(held[worker][0], held[worker][0].copy()), (machine.parameters, machine.parameters.copy())]
    for array, copy in handed:
        assert array.tobytes() == copy.tobytes()
    assert len({copy.tobytes() for _, copy in handed}) > 15, "they did change"
    assert start.tobytes() == updates(1)[0].tobytes()
    assert given.tobytes() == updates(60).tobytes()


@every_method
def test_the_update_is_not_kept(parameters: dict[str, object]) -> None:
    method = make(parameters)
    alone, reused = method.machine(np.ones(SIZE), workers=4), method.machine(np.ones(SIZE), workers=4)
    answers, given = order(4, 60), updates(60)
    expected = run(alone, answers, given)
    buffer = np.empty(SIZE)
    held = [reused.pull(worker) for worker in range(4)]
    for worker, update, sent in zip(answers, given, expected[4:], strict=True):
        buffer[:] = update
        held[worker] = reused.push(buffer, held[worker][1], worker, 0.1)
        assert held[worker][0].tobytes() == sent.tobytes()
        buffer.fill(math.nan)


@every_method
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_keeps_the_dtype_of_the_parameters(parameters: dict[str, object], dtype: type) -> None:
    machine = make(parameters).machine(updates(1, dtype)[0], workers=4)
    for array in run(machine, order(4, 60), updates(60, dtype)):
        assert array.dtype == dtype
        assert array.shape == (SIZE,)
    for name, value in vars(machine).items():
        assert not isinstance(value, np.ndarray) or value.dtype == dtype, name
        assert not isinstance(value, np.generic), f"{name} would make float32 arrays float64"


@every_method
def test_machines_over_slices_are_one_machine_over_the_whole(parameters: dict[str, object]) -> None:
    workers, answers, given = 16, order(16, 100), updates(100)
    method, start = make(parameters), updates(1)[0]
    whole = np.array(run(method.machine(start, workers), answers, given))
    for piece in (slice(0, 1), slice(1, 20), slice(20, SIZE)):
        part = np.array(run(method.machine(start[piece], workers), answers, given[:, piece]))
        assert part.tobytes() == whole[:, piece].tobytes()


@every_method
def test_two_machines_share_nothing(parameters: dict[str, object]) -> None:
    method, answers, given = make(parameters), order(4, 60), updates(60)
    first = run(method.machine(np.ones(SIZE), workers=4), answers, given)
    again = run(method.machine(np.ones(SIZE), workers=4), answers, given)
    assert np.array(first).tobytes() == np.array(again).tobytes()


@every_method
def test_parameters_change_once_a_period(parameters: dict[str, object]) -> None:
    method = make(parameters)
    machine = method.machine(np.ones(SIZE), workers=4)
    before = machine.parameters
    held = [machine.pull(worker) for worker in range(4)]
    for count, (worker, update) in enumerate(zip([0, 1, 2, 3] * 6, updates(24), strict=True), start=1):
        held[worker] = machine.push(update, held[worker][1], worker, 0.1)
        due = count % method.period(4) == 0
        assert (machine.parameters is not before) == due
        assert (machine.parameters != before).any() == due
        before = machine.parameters


@every_method
def test_only_estimates_differ_from_the_parameters(parameters: dict[str, object]) -> None:
    method = make(parameters)
    machine = method.machine(np.ones(SIZE), workers=4)
    run(machine, order(4, 60), updates(60))
    assert (machine.pull(0)[0] is machine.parameters) != method.estimates


def test_only_methods_that_need_it_refuse_one_kind_of_work() -> None:
    work = {str(one["name"]): make(one).updates for one in METHODS}
    assert {name for name, kinds in work.items() if "gradient" not in kinds} == {
        "fedasync",
        "fedbuff",
        "fadas",
        "ca2fl",
    }
    assert {name for name, kinds in work.items() if "delta" not in kinds} == {"ormo-da"}
    assert {str(one["name"]) for one in METHODS if make(one).barrier} == {"ssgdm", "ssgd-nesterov"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"momentum": value, "name": name}
        for name in ("ormo", "ormo-vanilla", "shifted-momentum", "smega2", "dana-zero", "ssgdm", "ssgd-nesterov")
        for value in (1.0, -0.1)
    ]
    + [
        {"smoothness": 0.0, "name": "ormo-da"},
        {"smoothness": math.inf, "name": "ormo-da"},
        {"smoothness": 1.0, "name": "ormo-da-free"},
        {"mixing": 0.0, "name": "fedasync"},
        {"mixing": 1.1, "name": "fedasync"},
        {"staleness": "linear", "name": "fedasync"},
        {"a": 0.0, "name": "fedasync"},
        {"a": 0.5, "name": "fedasync", "staleness": "constant"},
        {"b": 4, "name": "fedasync"},
        {"b": 4, "name": "fedasync", "staleness": "constant"},
        {"b": -1, "name": "fedasync", "staleness": "hinge"},
        {"buffer_size": 0, "name": "fedbuff"},
        {"server_lr": 0.0, "name": "fedbuff"},
        {"server_lr": math.inf, "name": "ordered-adam"},
        {"beta1": 1.0, "name": "ordered-adam"},
        {"beta2": -0.1, "name": "ordered-adam"},
        {"eps": 0.0, "name": "ordered-adam"},
    ],
    ids=str,
)
def test_impossible_parameters_are_refused_by_name(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"^algorithm\.{next(iter(parameters))}\b"):
        make_component("algorithm", Algorithm, parameters)


def test_ormo_da_has_to_be_told_the_smoothness() -> None:
    with pytest.raises(ConfigError, match=r"^algorithm\.smoothness: must be set with algorithm\.name=ormo-da$"):
        make_component("algorithm", Algorithm, "ormo-da")


def test_a_parameter_without_effect_says_so() -> None:
    expected = r"^algorithm\.b=4 has no effect with staleness=polynomial; leave it out$"
    with pytest.raises(ConfigError, match=expected):
        make_component("algorithm", Algorithm, {"name": "fedasync", "b": 4})
