"""A host's answer: whether an update is taken does not depend on how the host answers."""

import numpy as np
import pytest

from fedbench.engine.host_upload import HostUpload
from fedbench.engine.messages import HostOrder
from fedbench.protocol.exact_sum import LARGEST_UPDATE
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PartTable

TABLE = PartTable(ParameterLayout.build([("one", {"weight": (3,)}), ("two", {"bias": (2,)})]), statistics=False)


def answer(combine: bool, scale: float, clients: int = 1) -> HostUpload:
    order = HostOrder(
        round=0, union=(0, 1), lr_factor=1.0, stale=(), clients=tuple(range(clients)), groups=((0, 1),) * clients,
        sent=((0, 1),) * clients,
        weights=(1.0,) * clients, scales=(scale,) * clients, own_starts=False, combine=combine, on_failure="stop",
    )  # fmt: skip
    return HostUpload(TABLE, order)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("share", [1e-6, 0.25, 0.5, 1.0, 2.0, np.nan])
def test_a_sum_and_single_messages_take_the_same_updates(scale: float, share: float) -> None:
    values = np.array([0, 1, share * LARGEST_UPDATE, 0, 0], np.float32)
    verdicts = [answer(combine, scale).add(0, (0, 1), values, np.zeros(5, np.float32)) for combine in (True, False)]
    assert verdicts[0] == verdicts[1] == (share * max(scale, 1.0) <= 1)


def test_what_is_not_taken_is_not_sent() -> None:
    values = np.full(5, 2 * LARGEST_UPDATE, np.float32)
    for combine in (True, False):
        one = answer(combine, 1.0)
        one.add(0, (0, 1), values, np.zeros(5, np.float32))
        assert not one.content().any()


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("groups", [(0, 1), (1,)])
def test_a_refused_update_leaves_the_sum_of_the_others(groups: tuple[int, ...], scale: float) -> None:
    upload, zero = answer(True, scale, clients=3), np.zeros(5, np.float32)
    assert upload.add(0, (0, 1), np.ones(5, np.float32), zero)
    before = upload.content().copy()
    values = np.ones(TABLE.values(groups), np.float32)
    values[-1] = np.nan
    assert not upload.add(1, groups, values, zero[: len(values)])
    np.testing.assert_array_equal(upload.content(), before)


def test_messages_of_several_clients_do_not_change_with_the_memory_that_they_came_in() -> None:
    upload, values = answer(False, 1.0, clients=3), np.zeros(5, np.float32)
    for index, value in enumerate((1.0, np.inf, 3.0)):
        values[:] = value
        assert upload.add(index, (0, 1), values, np.zeros(5, np.float32)) == np.isfinite(value)
    assert upload.content().tolist() == [1.0] * 5 + [3.0] * 5
