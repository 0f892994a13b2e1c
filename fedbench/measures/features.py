"""The features of each layer group: the output of the group's last module for each sample."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from fedbench.protocol.layout import ParameterLayout


def feature_modules(module: nn.Module, layout: ParameterLayout, forward: Callable[[], object]) -> dict[int, str]:
    """{layer group: name of the module whose output are its features}.

    Of the modules that hold the group's parameters, it is the one that ends last in a forward pass, so that the
    normalisation behind a convolution is part of the features. A module that is never called itself (such as the output
    projection inside `nn.MultiheadAttention`) is represented by the nearest module around it that is.

    Args:
        module: the network.
        layout: of its parameters.
        forward: makes one forward pass.
    """
    ended: list[str] = []

    def recorded(name: str) -> Callable[..., None]:
        return lambda *_: ended.append(name)

    handles = [child.register_forward_hook(recorded(name)) for name, child in module.named_modules()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    last_call = {name: place for place, name in enumerate(ended)}
    chosen: dict[int, str] = {}
    for slot in layout.slots:
        owner = slot.name.rpartition(".")[0]
        while owner not in last_call:
            owner = owner.rpartition(".")[0]
        if slot.group not in chosen or last_call[owner] > last_call[chosen[slot.group]]:
            chosen[slot.group] = owner
    return chosen


@contextmanager
def recorded_features(
    module: nn.Module, modules: Mapping[int, str], kept: Callable[[Tensor], Tensor] = lambda features: features
) -> Iterator[dict[int, Tensor]]:
    """Within this context every forward pass leaves the features of its samples in the dictionary that is yielded.

    Args:
        module: the network.
        modules: as `feature_modules` gives them.
        kept: what is kept of features [samples, features], for which there may be no memory as a whole.

    Yields:
        {layer group: what is kept} of the last forward pass.
    """
    features: dict[int, Tensor] = {}

    def recorded(group: int) -> Callable[..., None]:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if (tensor := _first_tensor(output)) is not None:
                features[group] = kept(tensor.detach().reshape(len(tensor), -1))

        return keep

    handles = [module.get_submodule(name).register_forward_hook(recorded(group)) for group, name in modules.items()]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def _first_tensor(output: object) -> Tensor | None:
    """The tensor that a module returned, or the first one of several."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return next((tensor for part in parts if (tensor := _first_tensor(part)) is not None), None)
