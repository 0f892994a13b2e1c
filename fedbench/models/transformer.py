"""The FedPart paper's text classifier: three post-norm transformer encoder layers; causal, a language model.

H. Wang et al., "Why Go Full? Elevating Federated Learning Through Partial Network Updates", NeurIPS 2024,
arXiv 2410.11559; the encoder layer is A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017.

Attention is written as two plain matrix products. A fused kernel would hide them from the FLOP counter on some
devices, and its backward pass recomputes them on others: the count would depend on the machine.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from fedbench.errors import ModelError
from fedbench.models.base import Model, Task
from fedbench.models.requirements import text_length

if TYPE_CHECKING:
    from torch import nn


class TextTransformer(Model):
    """Small transformer for text: an encoder that classifies, or causal, for the next token after each.

    Eight layer groups with three layers. With the vocabulary of 30,333 tokens and five outputs it has 6,555,411
    parameters, the count of the FedPart paper's AG News model; AG News has four classes, and a model for four has 201
    parameters fewer (6,555,210).

    Attributes:
        embedding: Width of the embedding and of the encoder, even, a multiple of `heads`.
        layers: Number of encoder layers.
        heads: Attention heads of each layer.
        feedforward: Hidden units of each feed-forward block.
        dropout: Probability of dropping, for embeddings, attention weights and both feed-forward outputs.
        readout: Whether the classifier sees the mean over the tokens, or the output at the last position, be it padding
            (last, as in the FedPart paper's code). With task=next_token it sees each token, which itself sees none
            after it.
        mask_padding: Whether attention and mean leave padding out. false: padding is a token like any other (the code
            of the FedPart paper has no padding mask).
    """

    name: str = "text-transformer"
    embedding: int = Field(200, gt=0, multiple_of=2)
    layers: int = Field(3, gt=0, le=1000)
    heads: int = Field(2, gt=0)
    feedforward: int = Field(2, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    readout: Literal["mean", "last"] = "mean"
    mask_padding: bool = True

    @model_validator(mode="after")
    def check_heads(self) -> "TextTransformer":
        """The heads share the embedding's width evenly."""
        if self.embedding % self.heads:
            raise ValueError(f"heads={self.heads}: must divide embedding={self.embedding}")
        return self

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.transformer import TransformerClassifier

        each_token = task.target == "next_token"
        if each_token and self.readout != "mean":
            raise ModelError(
                f"model.readout={self.readout}: has no effect with task=next_token, where each token is read; leave it "
                "out"
            )
        return TransformerClassifier(
            length=text_length(task, self.name),
            vocabulary=task.vocabulary_size,
            padding=task.padding_index if self.mask_padding else -1,
            sizes=(self.embedding, self.layers, self.heads, self.feedforward),
            dropout=self.dropout,
            classes=task.classes,
            readout="each" if each_token else self.readout,
        )
