"""Tensors that a network holds under several names, and memory that two of its tensors share."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fedbench.errors import ModelError
from fedbench.models.base import Model, Task
from fedbench.models.groups import build_module
from fedbench.models.shared_tensors import saved_names, ties_in_words

TASK = Task("image", (2, 2, 3), 3)
MODULES: list[nn.Module] = []


class Given(Model):
    """Builds the module that was appended last."""

    name: str = "given"

    def build(self, task: Task) -> nn.Module:
        return MODULES[-1]


def built(module: nn.Module) -> nn.Module:
    MODULES.append(module)
    return build_module(Given(), TASK, seed=0)


def aliasing(kind: str) -> nn.Module:
    """Two layers, and a second tensor over the memory of a parameter or a buffer of the first."""
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    weight = module[0].weight
    match kind:
        case "buffer":
            module.register_buffer("copy", weight.data)
        case "constant buffer":
            module.register_buffer("copy", weight.detach()[1:], persistent=False)
        case "attribute":
            module[1].copy = weight.detach()
        case "view":
            module.first_row = weight[0]
        case "list":
            module.kept = {"all": [weight.detach()]}
        case "object":
            module.kept = SimpleNamespace(shadow=[weight.data])
        case "array":
            module.kept = weight.detach().numpy()
        case "parameter":
            module[1].weight = nn.Parameter(weight.data)
        case "frozen":
            module[1].weight = nn.Parameter(weight.data, requires_grad=False)
        case "of a buffer":
            module.register_buffer("centres", torch.zeros(3))
            module.kept = module.centres[:2]
    return module


@pytest.mark.parametrize(
    "kind",
    ["buffer", "constant buffer", "attribute", "view", "list", "object", "array", "parameter", "frozen", "of a buffer"],
)
def test_a_second_tensor_over_the_memory_of_a_parameter_is_refused(kind: str) -> None:
    moving = "buffer 'centres'" if kind == "of a buffer" else r"parameter '[01]\.weight'"
    message = rf"^model.name=given: \S+ \S+ shares memory with {moving}, .* assign the same"
    with pytest.raises(ModelError, match=message):
        built(aliasing(kind))


def test_memory_that_is_shared_without_harm_is_allowed() -> None:
    block = torch.randn(2, 3, 3)
    module = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    module[0].weight, module[1].weight = (nn.Parameter(part) for part in block)  # beside each other
    module[2].requires_grad_(False)
    module.constant = module[2].weight.detach()  # frozen parameters stay where they are
    module.everything = list(module.parameters())  # the parameters themselves
    module[3] = nn.utils.spectral_norm(module[3])  # computes an attribute `weight` before each call
    module.append(nn.LSTM(3, 3))
    assert built(module) is module


def test_a_tensor_with_several_names_is_kept_under_the_first() -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 5, bias=False))
    module[2].weight = module[0].weight
    module.append(module[1])
    names = saved_names(module)
    assert names.keys() == module.state_dict().keys()
    assert {name: kept for name, kept in names.items() if name != kept} == {
        "2.weight": "0.weight",
        **{f"3.{leaf}": f"1.{leaf}" for leaf in module[1].state_dict()},
    }
    line = "2.weight is 0.weight, 3.weight is 1.weight, 3.bias is 1.bias: one parameter, which is trained, sent"
    assert [text.startswith(line) for text in ties_in_words(module)] == [True]
    assert list(ties_in_words(nn.Linear(2, 2))) == []
    assert list(ties_in_words(module.requires_grad_(False))) == []


class SavesMore(nn.Linear):
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}scale"] = torch.ones(1)


def test_what_a_state_dict_holds_beside_parameters_and_buffers_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^SavesMore: 'scale' of its state_dict is neither a parameter nor a buffer"):
        saved_names(SavesMore(2, 2))
