"""Networks of `fedbench.models.lstm`."""

import torch
from torch import Tensor, nn

from fedbench.models.networks.dropout import Dropout


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
        self.dropout = Dropout(dropout)
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
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, series: Tensor) -> Tensor:
        """float32 [N, C, L] or [N, L] -> outputs float32 [N, K]."""
        states = series.unsqueeze(2) if series.dim() == 2 else series.transpose(1, 2)
        for layer in self.layers:
            states = self.dropout(layer(states)[0])
        outputs: Tensor = self.output(states[:, -1])
        return outputs
