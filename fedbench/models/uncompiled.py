"""PyTorch's meta device and optimizers without PyTorch's compiler, whose import takes a second and is not needed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import CellType, FunctionType

MARK = "__dynamo_disable"
"""The attribute of a function in which PyTorch keeps that function as it is called while nothing is compiled."""


@contextmanager
def without_compiler() -> Iterator[None]:
    """Context in which operators on the meta device and new optimizers do not import `torch._dynamo`.

    PyTorch states the shapes of many operators in Python, through functions that the compiler must not look into
    (`torch._disable_dynamo`); methods of its optimizers are such functions, too. The first call of each imports the
    compiler, to tell it so, and keeps what it gives. Here each of them is kept as it is, and forgotten afterwards.
    Where the compiler is loaded already, or PyTorch is made otherwise, nothing changes.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    marked = [function for function in disabled_functions() if not hasattr(function, MARK)]
    for function in marked:
        setattr(function, MARK, function)
    try:
        yield
    finally:
        for function in marked:
            if getattr(function, MARK, None) is function:
                delattr(function, MARK)


def disabled_functions() -> tuple[FunctionType, ...]:
    """The functions that PyTorch keeps from its compiler, of operators on the meta device and of optimizers."""
    from torch.optim import Optimizer
    from torch.utils._python_dispatch import TorchDispatchMode

    modes: list[type] = [TorchDispatchMode]
    for mode in modes:
        modes += mode.__subclasses__()
    of_modes = _disabled_in([vars(mode).get("__torch_dispatch__") for mode in modes])
    return _of_operators() + of_modes + _disabled_in([*vars(Optimizer).values()])


@cache
def _of_operators() -> tuple[FunctionType, ...]:
    import torch._decomp
    import torch._refs

    return _disabled_in([*vars(torch._refs).values(), *torch._decomp.decomposition_table.values()])


def _disabled_in(values: list[object]) -> tuple[FunctionType, ...]:
    """The functions to which `torch._disable_dynamo` was applied, among values and what they are wrapped around."""
    import torch._compile

    disabled: list[FunctionType] = []
    seen: set[int] = set()
    waiting = list(values)
    while waiting:
        function = waiting.pop()
        if not isinstance(function, FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        enclosed = dict(zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True))
        inner = enclosed.get("fn")
        if function.__code__.co_filename == torch._compile.__file__ and isinstance(inner, FunctionType):
            disabled.append(inner)
        waiting += enclosed.values()
    return tuple(disabled)


def _content(cell: CellType) -> object:
    """What a variable of an enclosing function holds; None where it was never set."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
