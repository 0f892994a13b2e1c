"""Networks of `fedbench.models.transformer`."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fedbench.models.base import LayerGroup
from fedbench.models.networks.dropout import Dropout


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention (Vaswani et al., section 3.2)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.heads = heads
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Mix each token with those of its text that it sees.

        Args:
            tokens: float32 [N, L, width].
            hidden: bool [N, 1 or L, L], true at [n, i, j] where token i of text n does not see token j.

        Returns:
            float32 [N, L, width].
        """
        count, length, width = tokens.shape
        heads = self.in_proj(tokens).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        # The most negative finite value, not -inf: a text of padding alone then gives no NaN.
        scores = scores.masked_fill(hidden[:, None], torch.finfo(scores.dtype).min)
        mixed = self.dropout(scores.softmax(dim=-1)) @ value
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(count, length, width))
        return out


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each added to its input and normalised after (post-norm)."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.relu = nn.ReLU()
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """float32 [N, L, width], bool [N, 1 or L, L] as for `SelfAttention` -> float32 [N, L, width]."""
        tokens = self.norm1(tokens + self.dropout(self.attention(tokens, hidden)))
        units = self.dropout(self.relu(self.linear1(tokens)))
        out: Tensor = self.norm2(tokens + self.dropout(self.linear2(units)))
        return out


class TransformerClassifier(nn.Module):
    """Embedding with sinusoidal positions, encoder layers, mean over the real tokens or some positions, linear.

    Args:
        length: L, the longest text.
        vocabulary: number of token ids.
        padding: token id of padding; negative when there is none, or when it is a token like any other.
        sizes: embedding width, layers, heads, feed-forward units.
        dropout: probability of dropping.
        classes: number of outputs.
        readout: what the last linear layer sees: "mean", "last", or "each", where no token sees those after it.
    """

    positions: Tensor

    def __init__(
        self,
        length: int,
        vocabulary: int,
        padding: int,
        sizes: tuple[int, int, int, int],
        dropout: float,
        classes: int,
        readout: Literal["mean", "last", "each"] = "mean",
    ) -> None:
        super().__init__()
        width, layers, heads, feedforward = sizes
        self.padding = padding
        self.readout = readout
        self.scale = math.sqrt(width)
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=padding if padding >= 0 else None)
        self.register_buffer("positions", sinusoids(length, width), persistent=False)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feedforward, dropout) for _ in range(layers))
        self.classifier = nn.Linear(width, classes)
        with torch.no_grad():
            # Unit variance after the scaling by sqrt(width) of Vaswani et al., section 3.4.
            self.embedding.weight.mul_(1 / self.scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [N, L] -> logits float32 [N, classes], or [N, L, classes] for each token."""
        padding = tokens == self.padding
        hidden = self.unseen_after(padding) if self.readout == "each" else padding[:, None, :]
        states = self.embedding(tokens) * self.scale + self.positions[: tokens.shape[1]]
        states = self.dropout(states)
        for layer in self.layers:
            states = layer(states, hidden)
        if self.readout != "mean":
            read: Tensor = self.classifier(states if self.readout == "each" else states[:, -1])
            return read
        real = (~padding).unsqueeze(-1).to(states.dtype)
        mean = (states * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        logits: Tensor = self.classifier(mean)
        return logits

    @staticmethod
    def unseen_after(padding: Tensor) -> Tensor:
        """The tokens that each one does not see: padding and those after it, but never itself, bool [N, L, L]."""
        length = padding.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=padding.device).triu(1)
        itself = torch.eye(length, dtype=torch.bool, device=padding.device)
        return (padding[:, None, :] | later) & ~itself

    def layer_groups(self) -> list[LayerGroup]:
        """The paper's groups: embedding, each layer's attention and its remainder, classifier."""
        names = [name for name, _ in self.named_parameters()]

        def group(leader: str, *prefixes: str) -> LayerGroup:
            return LayerGroup(leader, tuple(name for name in names if name.startswith(prefixes)))

        groups = [group("embedding", "embedding.")]
        for index in range(len(self.layers)):
            layer = f"layers.{index}"
            groups.append(group(f"{layer}.attention", f"{layer}.attention."))
            groups.append(group(f"{layer}.linear1", f"{layer}.linear", f"{layer}.norm"))
        return [*groups, group("classifier", "classifier.")]


def sinusoids(length: int, width: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al., section 3.5), float32 [length, width]; `width` is even."""
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))
    table = torch.empty(length, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table
