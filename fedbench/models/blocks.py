"""The repeated blocks of a transformer as its layer groups: what lies before them, each block, what lies behind."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from fedbench.models.base import LayerGroup

FIRST_GROUP = "embeddings"


@dataclass(frozen=True)
class Blocks:
    """The place of the blocks in a network.

    Attributes:
        path: of the `nn.ModuleList` that holds them.
        count: their number.
    """

    path: str
    count: int

    def below(self, name: str) -> "Blocks":
        """The same blocks, in a network that holds this one as its submodule `name`."""
        return replace(self, path=f"{name}.{self.path}")


def find_blocks(network: nn.Module, count: int | None) -> Blocks | None:
    """The one list of `count` modules with parameters that lies in no other such list; None where there is not one.

    Args:
        network: the network.
        count: number of blocks; None: not known.
    """
    lists = list(_lists(network, count)) if count else []
    outermost = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists if other != path)]
    return Blocks(outermost[0], count) if count and len(outermost) == 1 else None


def _lists(network: nn.Module, count: int | None) -> Iterator[str]:
    for path, module in network.named_modules():
        is_candidate = isinstance(module, nn.ModuleList) and len(module) == count
        if is_candidate and all(any(True for _ in block.parameters()) for block in module.children()):
            yield path


def block_groups(network: nn.Module, blocks: Blocks) -> list[LayerGroup]:
    """The layer groups "embeddings", "layer.0", "layer.1", ..., and one that has the name of the last module.

    Parameters that are registered before the blocks are in the first group, those behind them in the last. Groups
    without parameters are left out.
    """
    names = [name for name, _ in network.named_parameters()]
    inside = [[name for name in names if name.startswith(f"{blocks.path}.{index}.")] for index in range(blocks.count)]
    in_blocks = {name for block in inside for name in block}
    first = min(index for index, name in enumerate(names) if name in in_blocks)
    before = names[:first]
    behind = [name for name in names[first:] if name not in in_blocks]
    last = behind[-1].rpartition(".")[0].rpartition(".")[2] if behind else ""
    groups = [(FIRST_GROUP, before), *((f"layer.{index}", block) for index, block in enumerate(inside)), (last, behind)]
    return [LayerGroup(name, tuple(members)) for name, members in groups if members]
