"""The text transformer against PyTorch's own encoder layer."""

import math

import pytest
import torch
from torch import nn

from fedbench.components.base import Component
from fedbench.errors import ConfigError, ModelError
from fedbench.models.base import Task
from fedbench.models.groups import build_module, derive_layer_groups, feature_layer, parameter_layout
from fedbench.models.networks.transformer import EncoderLayer, SelfAttention, sinusoids
from fedbench.models.transformer import TextTransformer

SMALL = Task("text", (7,), 4, vocabulary_size=30, padding_index=0)


def ag_news(classes: int) -> Task:
    return Task("text", (16,), classes, vocabulary_size=30_333, padding_index=0)


@pytest.mark.parametrize(("classes", "count"), [(5, 6_555_411), (4, 6_555_210)])
def test_parameter_count(classes: int, count: int) -> None:
    with torch.device("meta"):
        module = TextTransformer().build(ag_news(classes))
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_eight_groups() -> None:
    with torch.device("meta"):
        module = TextTransformer().build(ag_news(4))
    groups = derive_layer_groups(module, ag_news(4))
    layout = parameter_layout(module, groups)
    attention = 4 * (200 * 200 + 200)
    remainder = (200 * 2 + 2) + (2 * 200 + 200) + 2 * 400
    sizes = [layout.group_size(group) for group in range(layout.groups)]
    assert sizes == [30_333 * 200, *[attention, remainder] * 3, 201 * 4]
    assert groups[1].parameters == (
        "layers.0.attention.in_proj.weight",
        "layers.0.attention.in_proj.bias",
        "layers.0.attention.out_proj.weight",
        "layers.0.attention.out_proj.bias",
    )
    assert {name.split(".")[2] for name in groups[2].parameters} == {"linear1", "linear2", "norm1", "norm2"}


def test_eleven_layers_do_not_share_groups() -> None:
    """layers.1 is a prefix of layers.10."""
    module = build_module(TextTransformer(embedding=4, layers=11), SMALL, seed=0)
    assert len(derive_layer_groups(module, SMALL)) == 1 + 2 * 11 + 1


def copy_attention(own: SelfAttention, torchs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        torchs.in_proj_weight.copy_(own.in_proj.weight)
        torchs.in_proj_bias.copy_(own.in_proj.bias.normal_())
        torchs.out_proj.weight.copy_(own.out_proj.weight)
        torchs.out_proj.bias.copy_(own.out_proj.bias.normal_())


def test_encoder_layer_is_torchs_post_norm_layer() -> None:
    torch.manual_seed(0)
    own = EncoderLayer(width=12, heads=3, feedforward=5, dropout=0.0)
    torchs = nn.TransformerEncoderLayer(12, 3, 5, dropout=0.0, batch_first=True)
    copy_attention(own.attention, torchs.self_attn)
    for name in ("linear1", "linear2", "norm1", "norm2"):
        torchs.get_submodule(name).load_state_dict(own.get_submodule(name).state_dict())
    tokens = torch.randn(4, 6, 12)
    padding = torch.arange(6) >= torch.tensor([[6], [4], [1], [5]])
    real = ~padding
    expected = torchs(tokens, src_key_padding_mask=padding)
    torch.testing.assert_close(own(tokens, padding[:, None])[real], expected[real])


def test_padding_changes_nothing() -> None:
    module = build_module(TextTransformer(embedding=8), SMALL, seed=0).eval()
    text = torch.tensor([[4, 9, 2, 7]])
    padded = torch.tensor([[4, 9, 2, 7, 0, 0, 0]])
    torch.testing.assert_close(module(padded), module(text))
    assert not torch.allclose(module(padded), module(torch.tensor([[4, 9, 2, 7, 1, 0, 0]])))


def test_logits_are_the_mean_over_real_tokens_through_the_classifier() -> None:
    module = build_module(TextTransformer(embedding=8), SMALL, seed=0).eval()
    states: list[torch.Tensor] = []
    module.get_submodule("layers.2").register_forward_hook(lambda _module, _inputs, output: states.append(output))
    logits = module(torch.tensor([[4, 9, 2, 0, 0, 0, 0]]))
    classifier = module.get_submodule(feature_layer(module))
    torch.testing.assert_close(logits, classifier(states[0][:, :3].mean(dim=1)))


def test_no_padding_token_masks_nothing() -> None:
    task = Task("text", (7,), 4, vocabulary_size=30)
    module = build_module(TextTransformer(embedding=8), task, seed=0).eval()
    assert not torch.allclose(module(torch.tensor([[4, 9, 0]])), module(torch.tensor([[4, 9]])))


def test_order_matters() -> None:
    module = build_module(TextTransformer(embedding=8), SMALL, seed=0).eval()
    assert not torch.allclose(module(torch.tensor([[1, 2, 3]])), module(torch.tensor([[3, 2, 1]])))


def test_training_step_is_finite_even_for_a_text_of_padding_alone() -> None:
    module = build_module(TextTransformer(embedding=8), SMALL, seed=0)
    logits = module(torch.tensor([[0] * 7, [3, 4, 5, 0, 0, 0, 0]]))
    logits.logsumexp(dim=1).sum().backward()
    assert logits.isfinite().all()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_dropout_acts_in_training_only() -> None:
    module = build_module(TextTransformer(embedding=8, dropout=0.5), SMALL, seed=0)
    text = torch.tensor([[1, 2, 3]])
    assert not torch.equal(module(text), module(text))
    module.eval()
    assert torch.equal(module(text), module(text))


def test_sinusoids_by_their_formula() -> None:
    table = sinusoids(50, 6)
    assert table.shape == (50, 6)
    for position, pair in ((0, 0), (3, 1), (49, 2)):
        angle = position / 10_000 ** (2 * pair / 6)
        assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_embedded_tokens_start_with_unit_variance() -> None:
    module = build_module(TextTransformer(), ag_news(4), seed=0)
    weight = module.get_parameter("embedding.weight")
    assert weight[0].abs().max().item() == 0
    assert weight[1:].std().item() * math.sqrt(200) == pytest.approx(1, rel=0.01)


def test_images_and_uneven_heads_are_refused() -> None:
    with pytest.raises(ModelError, match=r"model.name=text-transformer: needs text, the data are images"):
        TextTransformer().build(Task("image", (8, 8, 1), 10))
    parameters: dict[str, object] = {"name": "text-transformer", "heads": 3}
    kind: type[Component] = TextTransformer
    with pytest.raises(ConfigError, match=r"model\.heads=3: must divide embedding=200"):
        kind.create("model", parameters)


def test_last_reads_out_the_last_position_and_unmasked_padding_is_a_token_like_any_other() -> None:
    tokens = torch.tensor([[3, 4, 5, 0, 0, 0, 0], [6, 7, 8, 9, 10, 11, 12]])
    seen: list[torch.Tensor] = []
    for readout in ("mean", "last"):
        for masked in (True, False):
            module = build_module(
                TextTransformer(embedding=8, readout=readout, mask_padding=masked), SMALL, seed=0
            ).eval()
            states: list[torch.Tensor] = []
            module.layers[-1].register_forward_hook(lambda _, __, output, states=states: states.append(output))
            with torch.no_grad():
                module.embedding.weight[0] = 0  # so that the four have the same parameters
                logits = module(tokens)
                real = (tokens != 0) | (not masked)
                mean = (states[0] * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True)
                expected = module.classifier(states[0][:, -1] if readout == "last" else mean)
            torch.testing.assert_close(logits, expected)
            seen.append(logits)
    assert not any(torch.allclose(seen[0][0], other[0]) for other in seen[1:])
    # The second text has no padding, so that a mask changes nothing for it.
    torch.testing.assert_close(seen[0][1], seen[1][1])
    torch.testing.assert_close(seen[2][1], seen[3][1])


def test_padding_is_trained_where_it_is_not_masked() -> None:
    for masked in (True, False):
        module = build_module(TextTransformer(embedding=8, dropout=0, mask_padding=masked), SMALL, seed=0)
        module(torch.tensor([[3, 4, 5, 0, 0, 0, 0]])).sum().backward()
        assert bool(module.embedding.weight.grad[0].any()) is not masked
