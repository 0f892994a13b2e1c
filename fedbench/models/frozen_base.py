"""The frozen base of a network whose adapters alone train: loaded once, shared by all processes of a machine.

A module declares by its attribute `has_frozen_base = True` that its frozen parameters, if it has any, are such a base:
they are never written to. They are in no message, in no checkpoint and in no saved model, where their SHA-256 stands
for them. Each process makes such a network from its skeleton: its code does not run anew, and its files are not read.
On a GPU a process has one copy of the base, however many networks it makes over it (`runtime.slots`); each process that
shares a GPU has its own, so that none depends on another's life.
"""

import copy
import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

MARK = "has_frozen_base"
"""The attribute of a module by which its frozen parameters are its base."""


def base_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """{name: parameter} of the frozen base, tied ones once; {} where the module declares none."""
    if not getattr(module, MARK, False):
        return {}
    return {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}


@dataclass(frozen=True, eq=False)
class FrozenBase:
    """The base of a network, and the network around it without its values.

    Pickled with protocol 5, the arrays are buffers beside the pickle: in an object store they are there once for each
    machine, and every process reads them in place.

    Attributes:
        skeleton: the network; its parameters are on PyTorch's meta device, where they have shapes and no values.
        values: {name: float32 array}, the base, perhaps empty; never written to.
    """

    skeleton: nn.Module
    values: dict[str, npt.NDArray[np.float32]]

    @classmethod
    def of(cls, module: nn.Module) -> "FrozenBase | None":
        """The base of a freshly built network, whose memory it shares; None where the network declares none."""
        if not getattr(module, MARK, False):
            return None
        memo: dict[int, object] = {}
        for parameter in module.parameters():
            empty = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
        values = {name: parameter.detach().numpy() for name, parameter in base_parameters(module).items()}
        return cls(copy.deepcopy(module, memo), values)

    @property
    def parameters(self) -> int:
        """Number of values in the base."""
        return sum(array.size for array in self.values.values())

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the names, shapes and values of the base."""
        whole = hashlib.sha256()
        for name, array in self.values.items():
            whole.update(f"{name} {list(array.shape)}\n".encode())
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()

    def module(self, device: torch.device | None = None) -> nn.Module:
        """A new network over the base, in whose memory its frozen parameters lie; all that trains is zero.

        Args:
            device: where the frozen parameters are, once for all networks that are made for it; None: the CPU. What
                trains is on the CPU.
        """
        placed, memo = self._placed(device), dict[int, object]()
        for name, parameter in self.skeleton.named_parameters():
            tensor = placed[name] if name in placed else torch.zeros(parameter.shape)
            memo[id(parameter)] = nn.Parameter(tensor, parameter.requires_grad)
        return copy.deepcopy(self.skeleton, memo)

    def _placed(self, device: torch.device | None) -> dict[str, Tensor]:
        """{name: tensor}, the base on a device: in place on the CPU, elsewhere a copy that is kept."""
        if device is None or device.type == "cpu":
            return {name: _in_place(array) for name, array in self.values.items()}
        copies = _COPIES.setdefault(self, {})
        if device not in copies:
            copies[device] = {name: _in_place(array).to(device) for name, array in self.values.items()}
        return copies[device]


_COPIES: "WeakKeyDictionary[FrozenBase, dict[torch.device, dict[str, Tensor]]]" = WeakKeyDictionary()
"""The bases of this process on devices other than the CPU, as long as the base is needed."""


def _in_place(array: npt.NDArray[np.float32]) -> Tensor:
    """A tensor over the memory of an array, which may be read-only: nothing writes to a frozen base."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
