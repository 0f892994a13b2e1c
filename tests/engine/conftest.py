"""What makes many short runs quick."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def flops_counted_once() -> Iterator[None]:
    """The FLOPs of a model are counted in its first run: that takes longer than the run itself."""
    from fedbench.accounting.flops import StepFlops

    known: dict[tuple[str, tuple[int, ...], int], int] = {}
    count = StepFlops._count

    def remembered(self: StepFlops, groups: tuple[int, ...], size: int) -> int:
        key = (f"{self._module} {self._task} {self._groups}", groups, size)
        if key not in known:
            known[key] = count(self, groups, size)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepFlops, "_count", remembered)
        yield


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the runs."""
    monkeypatch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small tensors several threads of PyTorch's mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
