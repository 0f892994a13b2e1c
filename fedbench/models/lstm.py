"""A character or word LSTM: the network of LEAF's Shakespeare task, for each next token or for whole texts.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097): tokens embedded in 8 dimensions,
two LSTM layers of 256 units, and a linear layer. LEAF predicts the one character after 80; here `task=next_token`
predicts the character after each, from the characters up to it.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench.models.base import Model, Task
from fedbench.models.requirements import text_length


class Lstm(Model):
    """LSTM on text: the next token after each, or classes of whole texts; LEAF's network for Shakespeare.

    819,920 parameters for next characters of 80. An LSTM layer of PyTorch has two biases for each gate, which are added
    up: 2,048 values more than LEAF's TensorFlow layers. Whole texts are judged by the state at their last token that is
    no padding. Each LSTM layer is a layer group.

    Attributes:
        embedding: Dimensions of the tokens' vectors.
        hidden: Units of each LSTM layer.
        layers: Number of LSTM layers.
        dropout: Probability of dropping an output of an LSTM layer.
    """

    name: str = "lstm"
    embedding: int = Field(8, gt=0)
    hidden: int = Field(256, gt=0)
    layers: int = Field(2, gt=0, le=100)
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, task: Task) -> nn.Module:
        text_length(task, self.name)
        return LstmNetwork(
            task.vocabulary_size,
            task.padding_index,
            (self.embedding, self.hidden, self.layers),
            self.dropout,
            task.classes,
            each_token=task.target == "next_token",
        )


class LstmNetwork(nn.Module):
    """Embedding, LSTM layers, and a linear layer on each state or on the last one.

    Args:
        vocabulary: number of token ids.
        padding: token id of padding; negative: there is none.
        sizes: dimensions of the embedding, units of a layer, layers.
        dropout: probability of dropping an output of an LSTM layer.
        outputs: number of outputs for each token, or for each text.
        each_token: whether there are outputs for each token.
    """

    def __init__(
        self, vocabulary: int, padding: int, sizes: tuple[int, int, int], dropout: float, outputs: int, each_token: bool
    ) -> None:
        super().__init__()
        embedding, hidden, layers = sizes
        self.padding = padding
        self.each_token = each_token
        self.embedding = nn.Embedding(vocabulary, embedding)
        inputs = [embedding] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in inputs)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [N, L] -> outputs float32 [N, L, K] or [N, K]."""
        states = self.embedding(tokens)
        for layer in self.layers:
            states = self.dropout(layer(states)[0])
        if not self.each_token:
            states = states[torch.arange(len(tokens), device=tokens.device), self.last_tokens(tokens)]
        outputs: Tensor = self.output(states)
        return outputs

    def last_tokens(self, tokens: Tensor) -> Tensor:
        """The place of each text's last token that is no padding, int64 [N]; 0 in a text of padding alone."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        last: Tensor = (places * (tokens != self.padding)).amax(dim=1)
        return last
