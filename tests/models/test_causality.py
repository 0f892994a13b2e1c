"""Networks for the next token do not see it: shipped ones, those of folders, and a reader in both directions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import bert, gpt
from torch import Tensor, nn

from fedbench.components.catalogue import make_component
from fedbench.errors import ModelError
from fedbench.models.base import Model, Task
from fedbench.models.causality import check_causal
from fedbench.models.groups import build_module

NEXT = Task("text", (9,), 30, vocabulary_size=30, padding_index=0, target="next_token")


class Reader(nn.Module):
    """A recurrent network with an output for each token."""

    def __init__(self, bidirectional: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 6)
        self.recurrent = nn.LSTM(6, 8, batch_first=True, bidirectional=bidirectional)
        self.last = nn.Linear(16 if bidirectional else 8, 30)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.last(self.recurrent(self.embedding(tokens))[0])
        return logits


def built(name: str, **keys: Any) -> nn.Module:
    component = make_component("model", Model, {"name": name, **keys})
    assert isinstance(component, Model)
    return build_module(component, NEXT, 0)


def test_a_network_that_reads_what_follows_is_refused() -> None:
    check_causal(Reader(bidirectional=False), NEXT, "my:Reader")
    with pytest.raises(ModelError, match=r"^model.name=my:Reader: its output at a place depends on later tokens"):
        check_causal(Reader(bidirectional=True), NEXT, "my:Reader")
    check_causal(Reader(bidirectional=True), Task("text", (9,), 30, vocabulary_size=30), "my:Reader")  # no next token


@pytest.mark.slow
def test_shipped_networks_and_those_of_folders_see_no_later_token(tmp_path: Path) -> None:
    networks = {"lstm": built("lstm", hidden=8), "text-transformer": built("text-transformer", embedding=8)}
    networks |= {name: built(name) for name in (bert(tmp_path / "bert"), gpt(tmp_path / "gpt"))}
    before = torch.get_rng_state()
    for name, module in networks.items():
        check_causal(module, NEXT, name)
        assert module.training
    assert torch.equal(before, torch.get_rng_state())
