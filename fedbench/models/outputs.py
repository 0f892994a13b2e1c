"""Networks whose forward pass returns several tensors, of which one is the output that is trained and scored."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedbench.errors import ModelError

MOST_NAMED = 8
"""Parts of an output that a message names."""


class OutputPart:
    """A forward hook that puts one part of what a network returns in the place of the whole.

    A network may return its tensor alone in evaluation, as those with auxiliary classifiers do; it then stays.

    Args:
        part: key of a mapping, name of a field, or index in a tuple or list, negative ones from its end.
    """

    def __init__(self, part: str | int) -> None:
        self._part = part

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Tensor:
        """The part.

        Raises:
            ModelError: the network has no such part, or returns a tensor alone in training mode.
        """
        owner = f"model.output={self._part}: {type(module).__name__} returns"
        if isinstance(output, Tensor):
            if module.training:
                raise ModelError(f"{owner} one tensor, of which no part is to be taken; leave it out")
            return output
        parts = parts_of(output)
        try:
            value = list(parts.values())[self._part] if isinstance(self._part, int) else parts[self._part]
        except (IndexError, KeyError):
            raise ModelError(f"{owner} {in_words(output)}; there is no such part") from None
        if not isinstance(value, Tensor):
            raise ModelError(f"{owner} {in_words(output)}; this part is no tensor but {type(value).__name__}")
        return value


def parts_of(output: object) -> dict[str | int, Any]:
    """What an output consists of: by key, by name of a field where it is a named tuple, else by index.

    A named tuple's and a mapping's parts can be taken by index, too.
    """
    if isinstance(output, Mapping):
        return {key: value for key, value in output.items() if isinstance(key, str)}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    return dict(enumerate(output)) if isinstance(output, tuple | list) else {}


def in_words(output: object) -> str:
    """The type of an output, with the names or the number of its parts."""
    parts, kind = parts_of(output), type(output).__name__
    if not parts:
        return kind
    if 0 in parts:
        return f"{kind} of {len(parts)}, from 0"
    shown = ", ".join(map(str, list(parts)[:MOST_NAMED]))
    return f"{kind} with {shown}{', ...' if len(parts) > MOST_NAMED else ''}"


def with_output(module: nn.Module, part: str | int | None) -> nn.Module:
    """The network itself, which from now on gives one part of its output; None: the whole."""
    if part is not None:
        module.register_forward_hook(OutputPart(part))
    return module
