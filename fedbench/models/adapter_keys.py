"""The keys of `model.peft`: which adapters train in place of a whole network."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from fedbench.components.base import Section


def _names(value: object) -> object:
    """One name as a list of names."""
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...] | None, BeforeValidator(_names)]


class Lora(Section):
    """Low-rank adapters beside linear layers.

    Attributes:
        r: Rank of each adapter.
        alpha: The adapter's output is multiplied by alpha / r.
        dropout: Probability of dropping an input of an adapter in training.
        targets: Names of the linear layers that are adapted, or the ends of their dotted paths (query, attn.c_attn).
            null: the attention projections that peft names for the model's type.
        head: Names of the modules that train in full beside the adapters. null: what the task adds behind the base (the
            classifier), and nothing where the base predicts the next token itself.
    """

    r: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Names = None
    head: Names = None


class Peft(Section):
    """Parameter-efficient fine-tuning: which few parameters train and travel in place of all.

    Attributes:
        lora: Low-rank adapters.
    """

    lora: Lora
