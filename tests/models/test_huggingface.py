"""Hugging Face's models from small folders, and low-rank adapters in them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import add_tokenizer, bert, gpt, pretrained_bert
from safetensors.torch import load_file
from torch import nn

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.paper import forward_macs
from fedbench.components.catalogue import make_component
from fedbench.components.model_folder import tokenizer_digest
from fedbench.components.own_code import own_code
from fedbench.data.tokenizer import FolderTokenizer
from fedbench.errors import ConfigError, ModelError
from fedbench.models.base import Model, Task
from fedbench.models.flat import FlatModel
from fedbench.models.frozen_base import FrozenBase
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.kept_state import constant_tensors
from fedbench.models.shared_tensors import saved_names

NEWS = Task("text", (12,), 4, vocabulary_size=100, padding_index=0)
NEXT = Task("text", (12,), 100, vocabulary_size=100, padding_index=0, target="next_token")
LORA = {"lora": {"r": 4}}


def model(name: str, **keys: Any) -> Model:
    component = make_component("model", Model, {"name": name, **keys})
    assert isinstance(component, Model)
    return component


def groups_of(module: nn.Module, task: Task) -> dict[str, int]:
    """{layer group: number of its values}."""
    groups = derive_layer_groups(module, task)
    layout = parameter_layout(module, groups)
    return {name: layout.count([index]) for index, name in enumerate(layout.group_names)}


def test_a_folder_with_a_configuration_alone_gives_a_network_that_is_a_function_of_the_seed(tmp_path: Path) -> None:
    name = bert(tmp_path / "bert")
    first, again, other = (build_module(model(name), NEWS, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    groups = groups_of(build_module(model(name), NEWS, 1), NEWS)
    assert list(groups) == ["embeddings", "layer.0", "layer.1", "classifier"]


def test_padding_changes_no_logits(tmp_path: Path) -> None:
    for name in (bert(tmp_path / "bert"), gpt(tmp_path / "gpt")):
        module = build_module(model(name), NEWS, 0).eval()
        short = torch.tensor([[5, 6, 7], [8, 9, 4]])
        long = torch.nn.functional.pad(short, (0, 9), value=NEWS.padding_index)
        torch.testing.assert_close(module(short), module(long))


def test_the_next_token_is_predicted_over_the_vocabulary_of_the_data(tmp_path: Path) -> None:
    module = build_module(model(gpt(tmp_path / "gpt")), NEXT, 0)
    assert module(torch.ones(2, 12, dtype=torch.int64)).shape == (2, 12, 100)
    assert list(groups_of(module, NEXT)) == ["embeddings", "layer.0", "layer.1", "ln_f"]


def test_adapters_and_head_alone_are_laid_out_by_block(tmp_path: Path) -> None:
    of_bert = build_module(model(bert(tmp_path / "bert"), peft=LORA), NEWS, 0)
    # Query and value of 32 x 32, each with factors of [4, 32] and [32, 4]; the classifier of [4, 32] and [4].
    assert groups_of(of_bert, NEWS) == {"layer.0": 512, "layer.1": 512, "classifier": 132}
    of_gpt = build_module(model(gpt(tmp_path / "gpt"), peft=LORA), NEXT, 0)
    assert groups_of(of_gpt, NEXT) == {"layer.0": 4 * (32 + 96), "layer.1": 4 * (32 + 96)}


def test_every_module_of_a_name_is_the_head(tmp_path: Path) -> None:
    module = build_module(model(bert(tmp_path / "bert"), peft={"lora": {"head": ["LayerNorm", "classifier"]}}), NEWS, 0)
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad and "LayerNorm" in name]
    assert len(trained) == 2 * (1 + 2 * 2)  # of the embeddings and twice in each of two layers


def test_a_head_that_is_among_the_usual_targets_trains_in_full(tmp_path: Path) -> None:
    module = build_module(model(bert(tmp_path / "bert"), peft={"lora": {"head": "query"}}), NEWS, 0)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in module.named_parameters() if ".lora_" in name}
    assert adapted == {"value"}
    assert module.get_parameter("network.bert.encoder.layer.0.attention.self.query.weight").requires_grad


def test_second_factors_begin_at_zero_and_first_ones_are_drawn_from_the_seed(tmp_path: Path) -> None:
    name = bert(tmp_path / "bert")
    plain, adapted = build_module(model(name), NEWS, 3).eval(), build_module(model(name, peft=LORA), NEWS, 3).eval()
    tokens = torch.arange(24).reshape(2, 12)
    torch.testing.assert_close(adapted(tokens), plain(tokens))
    factors = {key: value for key, value in adapted.state_dict().items() if "lora_" in key}
    assert all(bool(value.any()) == ("lora_A" in key) for key, value in factors.items())
    again = build_module(model(name, peft=LORA), NEWS, 3).state_dict()
    assert all(torch.equal(again[key], value) for key, value in factors.items())


def test_a_layer_adds_alpha_over_r_times_b_a_x(tmp_path: Path) -> None:
    module = build_module(model(bert(tmp_path / "bert"), peft={"lora": {"r": 2, "alpha": 6}}), NEWS, 0).eval()
    layer: Any = module.get_submodule("network.bert.encoder.layer.1.attention.self.query")
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        second.normal_()
        inputs = torch.randn(5, 32)
        expected = layer.base_layer(inputs) + 6 / 2 * inputs @ first.T @ second.T
        torch.testing.assert_close(layer(inputs), expected)


def test_a_base_is_shared_in_place_and_neither_travels_nor_is_saved(tmp_path: Path) -> None:
    built = build_module(model(bert(tmp_path / "bert"), peft=LORA), NEWS, 0)
    base = FrozenBase.of(built)
    assert base is not None
    frozen = {name: tensor for name, tensor in built.named_parameters() if not tensor.requires_grad}
    assert base.parameters == sum(tensor.numel() for tensor in frozen.values()) > 0
    first, second = base.module(), base.module()
    for name, tensor in frozen.items():
        assert first.get_parameter(name).data_ptr() == second.get_parameter(name).data_ptr() == tensor.data_ptr()
    assert not constant_tensors(built)
    assert set(saved_names(built)) == {name for name, tensor in built.named_parameters() if tensor.requires_grad}
    with torch.no_grad():
        for name, tensor in built.named_parameters():
            first.get_parameter(name).copy_(tensor)
    tokens = torch.arange(24).reshape(2, 12)
    torch.testing.assert_close(first.eval()(tokens), built.eval()(tokens), rtol=0, atol=0)


def test_networks_on_one_device_share_one_copy_of_the_base_there(tmp_path: Path) -> None:
    """PyTorch's meta device stands for a GPU: it has places, too, to which values are copied."""
    base = FrozenBase.of(build_module(model(bert(tmp_path / "bert"), peft=LORA), NEWS, 0))
    assert base is not None
    gpu = torch.device("meta")
    groups = derive_layer_groups(base.module(), NEWS)
    first, second = (
        FlatModel(module, parameter_layout(module, groups), gpu) for module in (base.module(gpu), base.module(gpu))
    )
    for name in base.values:
        tensors = [flat.module.get_parameter(name) for flat in (first, second)]
        assert tensors[0] is not tensors[1]
        assert tensors[0].is_meta
        assert tensors[0].untyped_storage()._cdata == tensors[1].untyped_storage()._cdata
    assert all(base.module().get_parameter(name).device.type == "cpu" for name in base.values)


def test_the_digest_of_a_base_follows_its_values(tmp_path: Path) -> None:
    name = bert(tmp_path / "bert")
    digests = []
    for seed in (0, 0, 1):
        base = FrozenBase.of(build_module(model(name, peft=LORA), NEWS, seed))
        assert base is not None
        digests.append(base.sha256)
    assert digests[0] == digests[1] != digests[2]


def test_a_network_that_writes_to_its_base_is_refused(tmp_path: Path) -> None:
    module = build_module(model(bert(tmp_path / "bert"), peft=LORA), NEWS, 0)
    flat = FlatModel(module, parameter_layout(module, derive_layer_groups(module, NEWS)))
    flat.reset()
    with torch.no_grad():
        module.get_parameter("network.bert.embeddings.word_embeddings.weight").mul_(2)
    with pytest.raises(ModelError, match=r"^BlockNetwork: writes to the frozen parameters beside its adapters$"):
        flat.reset()


@pytest.mark.slow
def test_flops_of_a_step_count_the_base_forwards_and_backwards_but_no_gradient_of_its_weights(tmp_path: Path) -> None:
    name = bert(tmp_path / "bert")
    counts = []
    for peft in (None, LORA):
        module = build_module(model(name, peft=peft), NEWS, 0)
        groups = derive_layer_groups(module, NEWS)
        counts.append((StepFlops(module, groups, NEWS), [group.name for group in groups]))
    (full, _), (adapted, names) = counts
    everything = range(len(names))
    assert adapted.forward_flops(4) > full.forward_flops(4)
    # Full: forward, gradients of inputs, gradients of weights. Adapted: forward, and gradients of the inputs.
    assert 1.5 * full.forward_flops(4) < adapted.flops(everything, 4) < 0.8 * full.flops(range(4), 4)
    last, first = adapted.flops([names.index("classifier")], 4), adapted.flops([names.index("layer.0")], 4)
    assert adapted.forward_flops(4) < last < first < adapted.flops(everything, 4)


def test_pretrained_weights_are_those_of_the_folder_and_the_head_is_drawn(tmp_path: Path) -> None:
    name = pretrained_bert(tmp_path / "bert")
    module = build_module(model(name, peft=LORA), NEWS, 0)
    saved = load_file(tmp_path / "bert" / "model.safetensors")
    inside = module.get_parameter("network.bert.encoder.layer.0.attention.self.query.base_layer.weight")
    torch.testing.assert_close(inside, saved["bert.encoder.layer.0.attention.self.query.weight"], rtol=0, atol=0)
    assert groups_of(module, NEWS) == {"layer.0": 512, "layer.1": 512, "classifier": 132}
    heads = [build_module(model(name), NEWS, seed).get_parameter("network.classifier.weight") for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_classifier_of_other_classes_is_drawn_anew_and_no_other_shape_may_differ(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    name = bert(folder)
    from transformers import BertConfig, BertForSequenceClassification

    BertForSequenceClassification(BertConfig.from_pretrained(folder, num_labels=7)).bfloat16().save_pretrained(folder)
    module = build_module(model(name), NEWS, 0)
    assert module(torch.ones(2, 12, dtype=torch.int64)).shape == (2, 4)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"intermediate_size": 48}))
    with pytest.raises(ModelError, match=r"tensors have other shapes in its weights than in the network \(bert\.\S+: "):
        build_module(model(name), NEWS, 0)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, NEWS, "t5 has an encoder and a decoder"),
        ({"model_type": "distilbert"}, NEXT, "transformers has no AutoModelForCausalLM of distilbert"),
        ({"model_type": "bert"}, Task("array", (3,), 2), "the data are arrays with labels for classification"),
    ],
)
def test_a_kind_of_model_that_does_not_serve_the_task_is_named(
    settings: dict[str, Any], task: Task, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=message) as raised:
        build_module(model(f"hf:{tmp_path}"), task, 0)
    assert "\n" not in str(raised.value)


def test_a_tokenizer_with_more_tokens_than_its_model_is_told_apart_from_tokens_of_the_data(tmp_path: Path) -> None:
    name = bert(tmp_path, vocabulary=20)
    add_tokenizer(tmp_path)
    task = Task("text", (12,), 4, vocabulary_size=100, padding_index=0, tokenizer=tokenizer_digest(tmp_path))
    with pytest.raises(
        ModelError, match=r"knows 20 tokens, its tokenizer has 100; set with random weights model.config"
    ):
        build_module(model(name), task, 0)


def test_a_folder_is_part_of_the_identity_of_a_run_by_its_content(tmp_path: Path) -> None:
    name = bert(tmp_path / "bert")
    before = own_code({"model": {"name": name}})
    assert list(before) == [name]
    bert(tmp_path / "bert", layers=3)
    assert own_code({"model": {"name": name}}) != before
    assert own_code({"model": {"name": "hf:nowhere"}}) == {}


def test_texts_become_the_tokens_of_the_model(tmp_path: Path) -> None:
    bert(tmp_path / "bert")
    add_tokenizer(tmp_path / "bert")
    tokenizer = FolderTokenizer(f"hf:{tmp_path / 'bert'}", "tokenizer")
    ids = tokenizer.encode(["The team wins", "", "chip"], 6)
    assert (ids.dtype, ids.shape, tokenizer.padding_index) == ("int32", (3, 6), 0)
    tokens = tokenizer.tokens()
    assert "".join(tokens[token].removeprefix("##") for token in ids[0] if token) == "Theteamwins"
    assert list(ids[1]) == [1, 0, 0, 0, 0, 0]  # the unknown token, and padding
    assert len(tokens) == tokenizer.vocabulary_size <= 120


def test_pretrained_weights_need_the_tokens_that_they_were_trained_with(tmp_path: Path) -> None:
    name = pretrained_bert(tmp_path / "bert")
    add_tokenizer(tmp_path / "bert")
    with pytest.raises(ModelError, match=r"its weights belong to its own tokenizer.*set data.dataset.tokenizer=hf:"):
        build_module(model(name), NEWS, 0)
    digest = tokenizer_digest(tmp_path / "bert")
    tokenized = Task("text", (12,), 4, vocabulary_size=100, padding_index=0, tokenizer=digest)
    build_module(model(name), tokenized, 0)
    build_module(model(name, weights="random"), NEWS, 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft": {"lora": {"targets": "qurey"}}}, r"^model.peft.lora.targets=qurey: model.name=hf:\S+ has no linear "
         r"layer of that name; did you mean 'query'\?$"),
        ({"peft": {"lora": {"head": "clasifier"}}}, r"has no such module; did you mean 'classifier'\?$"),
        ({"peft": {"lora": {"r": 0}}}, r"^model.peft.lora.r=0: "),
        ({"peft": {"lorra": {}}}, r"^model.peft.lorra: unknown key with \S+; did you mean 'lora'\?"),
        ({"peft": {"lora": {"r:4": None}}}, r"^model.peft.lora.r:4: unknown key with \S+; allowed: alpha, dropout, "
         r"head, r, targets"),
        ({"peft": {"lora": {"head": ["query", "value"]}}}, r"^model.peft.lora.head: holds the layers that are adapted"),
        ({"weights": "pretrained"}, r"^model.weights=pretrained: \S+ has no weights in safetensors; put"),
        ({"config": {"num_hiden_layers": 1}}, r"^model.config.num_hiden_layers: unknown key of bert; did you mean"),
        ({"config": {"vocab_size": 50}}, r"knows 50 tokens, the data have 100; set data.dataset.tokenizer="),
        ({"config": {"max_position_embeddings": 8}}, r"takes texts of up to 8 tokens, those of the data have 12"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=message) as raised:
        build_module(model(bert(tmp_path / "bert"), **keys), NEWS, 0)
    assert "\n" not in str(raised.value)


class Perceptron(nn.Module):
    """Two linear layers, and no class of transformers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(48, 16), nn.Linear(16, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(images.flatten(1))))


class Convolution(nn.Module):
    """No linear layer at all."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, classes, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.only(images).flatten(1)


IMAGES = Task("image", (4, 4, 3), 5)


def test_a_module_by_import_path_has_adapters_too() -> None:
    network = model(f"{__name__}:Perceptron", peft={"lora": {"r": 2, "targets": ["first"]}})
    module = build_module(network, IMAGES, 0)
    assert groups_of(module, IMAGES) == {"first": 2 * (48 + 16), "second": 5 * 16 + 5}
    base = FrozenBase.of(module)
    assert base is not None
    assert set(base.values) == {"first.base_layer.weight", "first.base_layer.bias"}
    assert base.module()(torch.zeros(2, 3, 4, 4)).shape == (2, 5)
    assert "peft" not in model(f"{__name__}:Perceptron").model_dump()


@pytest.mark.parametrize(
    ("name", "lora", "message"),
    [
        ("Convolution", {}, r"has no linear layer that an adapter could stand beside$"),
        ("Perceptron", {}, r"^model.peft.lora.targets: must be set with model.name=\S+; its linear layers: first$"),
    ],
)
def test_a_module_that_cannot_be_adapted_as_asked_is_one_line(name: str, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_module(model(f"{__name__}:{name}", peft={"lora": lora}), IMAGES, 0)


def test_the_papers_counting_knows_the_linear_layers_of_gpt(tmp_path: Path) -> None:
    module = build_module(model(gpt(tmp_path / "gpt")), NEWS, 0)
    # Of each of two blocks 32 x (96 + 32 + 128) and 128 x 32, five LayerNorms of 32 at four operations; the classifier.
    assert forward_macs(module, NEWS) == 12 * (2 * 32 * (96 + 32 + 128 + 128) + 5 * 4 * 32 + 4 * 32)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model.name=hf:/no/such: there is no folder /no/such$"):
        model("hf:/no/such")
    with pytest.raises(ConfigError, match=r"no such model in the Hugging Face cache; nothing is downloaded without"):
        model("hf:nobody/nothing-of-that-name")
    with pytest.raises(ConfigError, match=r"has no config.json; name a folder as save_pretrained writes it$"):
        model(f"hf:{tmp_path}")
