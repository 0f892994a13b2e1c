"""The sum of a host's clients where they train has the bits of the sum in the host's memory. Here both are a CPU."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small import config

from fedbench import run
from fedbench.engine import client_host
from fedbench.engine.device_sum import DeviceSum
from fedbench.engine.host_upload import HostUpload
from fedbench.engine.messages import HostOrder, RoundPlan
from fedbench.protocol.exact_sum import LARGEST_UPDATE
from fedbench.protocol.layout import ParameterLayout, Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable

LAYOUT = ParameterLayout.build([("one", {"weight": (3,)}), ("two", {"bias": (2,)})])
TABLE = PartTable(LAYOUT, statistics=False, channels=("control",))
FLOATS = st.floats(-(2.0**21), 2.0**21, width=32) | st.sampled_from([np.inf, -np.inf, np.nan, 2.0**20, -0.0])
VECTORS = arrays(np.float32, 5, elements=FLOATS)


def order(groups: tuple[tuple[int, ...], ...], weight: float, scale: float) -> HostOrder:
    count = len(groups)
    return HostOrder(
        round=0, union=(0, 1), lr_factor=1.0, stale=(), clients=tuple(range(count)), groups=groups, sent=groups,
        weights=(weight,) * count, scales=(scale,) * count, own_starts=False, combine=True, on_failure="stop",
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    start=arrays(np.float32, 5, elements=st.floats(-100, 100, width=32)),
    clients=st.lists(st.tuples(VECTORS, VECTORS, st.sampled_from([(0, 1), (0,), (1,), ()])), min_size=1, max_size=3),
    weight=st.floats(2.0**-45, 1.0),
    scale=st.sampled_from([1.0, 0.5, 3.0]),
)
def test_it_has_the_bits_of_the_sum_in_the_hosts_memory(
    start: Vector, clients: list[tuple[Vector, Vector, tuple[int, ...]]], weight: float, scale: float
) -> None:
    of_round = order(tuple(groups for _, _, groups in clients), weight, scale)
    received = {PARAMETERS: start, "control": np.ones(5, np.float32), STATISTICS: np.empty(0, np.float32)}
    on_device = DeviceSum(TABLE, of_round, {name: torch.from_numpy(vector) for name, vector in received.items()})
    in_memory = HostUpload(TABLE, of_round)
    for index, (values, control, groups) in enumerate(clients):
        parts = TABLE.uploaded(groups)
        reference = TABLE.gather({PARAMETERS: start, "control": np.zeros(5, np.float32)}, parts).copy()
        message = TABLE.gather({PARAMETERS: values, "control": control}, parts).copy()
        expected = in_memory.add(index, parts, message, reference)
        sent = on_device.message(
            parts, {PARAMETERS: torch.from_numpy(values), "control": torch.from_numpy(control.astype(np.float32))}
        )
        assert on_device.add(index, parts, sent) == expected
    np.testing.assert_array_equal(on_device.content(), in_memory.content())


def test_the_limit_on_an_update_holds_here_too() -> None:
    table = PartTable(LAYOUT, statistics=False)
    for scale, share, taken in ((1.0, 1.0, True), (1.0, 1.01, False), (2.0, 0.6, False), (0.5, 1.01, False)):
        collected = DeviceSum(table, order(((0, 1),), 1.0, scale), {PARAMETERS: torch.zeros(5)})
        values = torch.tensor([0, 1, share * LARGEST_UPDATE, 0, 0])
        assert collected.add(0, (0, 1), values) is taken
        assert collected.content().any() == taken


def test_a_message_of_another_shape_is_not_added() -> None:
    collected = DeviceSum(TABLE, order(((0, 1),), 1.0, 1.0), {PARAMETERS: torch.zeros(5), "control": torch.zeros(5)})
    parts = TABLE.uploaded((0, 1))
    message = collected.message(parts, {PARAMETERS: torch.ones(5), "control": torch.ones(4)})
    assert not collected.add(0, parts, message)
    assert not collected.content().any()


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("algorithm=scaffold", "local.optimizer=sgd"),
        ("model=cnn-bn", "model.width=4", "schedule=per-client"),
        ("algorithm=fednova", "local.optimizer=sgd", "data.partition=quantity", "data.partition.alpha=1.0"),
    ],
    ids=["fedpart", "further channels", "statistics, groups by client", "scaled"],
)
def test_a_run_leaves_the_same_model(overrides: tuple[str, ...], slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("runtime.executor=inline", "rounds=2", "data.clients=6", f"runtime.slots={slots}", *overrides)
    expected = run(config(*overrides)).summary["model_sha256"]
    sums: list[DeviceSum] = []
    plain_order = RoundPlan.order

    def summed(plan: RoundPlan, clients: tuple[int, ...], **arguments: Any) -> HostOrder:
        return plain_order(plan, clients, **arguments | {"combine": True})

    monkeypatch.setattr(RoundPlan, "order", summed)  # the plain executor has single messages otherwise

    class Counted(DeviceSum):
        def __init__(self, table: PartTable, of_round: HostOrder, start: dict[str, torch.Tensor]) -> None:
            super().__init__(table, of_round, start)
            sums.append(self)

    monkeypatch.setattr(client_host, "sums_on_device", lambda device: True)
    monkeypatch.setattr(client_host, "DeviceSum", Counted)
    assert run(config(*overrides)).summary["model_sha256"] == expected
    assert sums
