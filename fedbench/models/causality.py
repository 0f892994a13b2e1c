"""A check of networks that predict the next token: what they say at a place must not depend on later tokens."""

import torch
from torch import Tensor, nn

from fedbench.errors import ModelError
from fedbench.models.base import Task
from fedbench.models.probe import training_copy

MOST_PARAMETERS = 100_000_000
"""Networks with more are not tried out: a copy and two passes of them take too long."""

TOLERANCE = 1e-5
"""Share of the largest output by which the same numbers may differ between two passes."""


def check_causal(module: nn.Module, task: Task, owner: str) -> None:
    """Refuse a network for `next_token` that reads the token which it is to predict.

    A copy of the network, in evaluation mode, gets two texts that differ in their second half alone; its outputs for
    the first half have to be the same. Other tasks, and networks with more than `MOST_PARAMETERS`, are let through.

    Args:
        module: the network, which is not changed.
        task: what it is for.
        owner: the model's name, for the message.

    Raises:
        ModelError: the outputs for the first half differ.
    """
    tokens = [token for token in range(min(task.vocabulary_size, 4)) if token != task.padding_index]
    length = task.input_shape[0]
    if task.target != "next_token" or len(tokens) < 2 or length < 2:
        return
    if sum(parameter.numel() for parameter in module.parameters()) > MOST_PARAMETERS:
        return
    seen = length // 2
    text = torch.tensor(tokens).repeat(length)[:length].expand(2, -1).clone()
    other = text.clone()
    other[:, seen:] = torch.where(text[:, seen:] == tokens[0], tokens[1], tokens[0])
    first, second = _outputs(module, text)[:, :seen], _outputs(module, other)[:, :seen]
    if (first - second).abs().max() > TOLERANCE * max(float(first.abs().max()), float(second.abs().max())):
        raise ModelError(
            f"model.name={owner}: its output at a place depends on later tokens, so that it reads the next token in"
            " place of predicting it; mask attention to what comes before (causal), and let recurrent layers run in one"
            " direction"
        )


def _outputs(module: nn.Module, text: Tensor) -> Tensor:
    """float32 [N, L, vocabulary], the outputs of a fresh copy on the CPU; the random state is not changed."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs: Tensor = training_copy(module, torch.device("cpu")).eval()(text)
    return outputs.float()
