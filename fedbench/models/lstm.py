"""LSTMs: the network of LEAF's Shakespeare task, for each next token or for whole texts, and the same on series.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097): tokens embedded in 8 dimensions,
two LSTM layers of 256 units, and a linear layer. LEAF predicts the one character after 80; here `task=next_token`
predicts the character after each, from the characters up to it.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from fedbench.errors import ModelError
from fedbench.models.base import Model, Task
from fedbench.models.requirements import series_shape, text_length

if TYPE_CHECKING:
    from torch import nn


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

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.lstm import LstmNetwork, SeriesLstm

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
