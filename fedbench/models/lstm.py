"""LSTMs: the network of LEAF's Shakespeare task, for each next token or for whole texts, and the same on series.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097): tokens embedded in 8 dimensions,
two LSTM layers of 256 units, and a linear layer. LEAF predicts the one character after 80; here `task=next_token`
predicts the character after each, from the characters up to it.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench.errors import ModelError
from fedbench.models.base import Model, Task
from fedbench.models.requirements import series_shape, text_length


class Lstm(Model):
    """LSTM on text or series: the next token after each, or whole rows; LEAF's network for Shakespeare.

    819,920 parameters for next characters of 80. An LSTM layer of PyTorch has two biases for each gate, which are added
    up: 2,048 values more than LEAF's TensorFlow layers. Whole texts are judged by the state at their last token that is
    no padding. Series, arrays [channels, length] or [length], are read step by step in place of the tokens' vectors,
    and judged by the state at their last step. Each LSTM layer is a layer group.

    Attributes:
        embedding: Dimensions of the tokens' vectors; of no effect on series.
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
        if task.kind == "array":
            channels, _ = series_shape(task, self.name)
            if self.embedding != Lstm.model_fields["embedding"].default:
                raise ModelError(
                    f"model.embedding={self.embedding}: has no effect on series, which have no tokens; leave it out"
                )
            return SeriesLstm(channels, self.hidden, self.layers, self.dropout, task.classes)
        text_length(task, self.name, "text or series")
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


class SeriesLstm(nn.Module):
    """LSTM layers over the steps of a series, and a linear layer on the last state.

    Args:
        channels: C of the series.
        hidden: units of a layer.
        layers: number of LSTM layers.
        dropout: probability of dropping an output of an LSTM layer.
        outputs: number of outputs for each series.
    """

    def __init__(self, channels: int, hidden: int, layers: int, dropout: float, outputs: int) -> None:
        super().__init__()
        inputs = [channels] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in inputs)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, series: Tensor) -> Tensor:
        """float32 [N, C, L] or [N, L] -> outputs float32 [N, K]."""
        states = series.unsqueeze(2) if series.dim() == 2 else series.transpose(1, 2)
        for layer in self.layers:
            states = self.dropout(layer(states)[0])
        outputs: Tensor = self.output(states[:, -1])
        return outputs
