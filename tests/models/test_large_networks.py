"""Activation checkpointing and bfloat16 parameters: what they compute, and the memory that is foreseen."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from small import config
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.memory import peak_training_bytes
from fedbench.algorithms.base import Objective
from fedbench.algorithms.moon import Moon
from fedbench.errors import ModelError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.run import run
from fedbench.models.base import Task
from fedbench.models.checkpointed import blocks, checkpoint_blocks
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.lowered import check_lowered
from fedbench.models.lstm import Lstm
from fedbench.models.mlp import Mlp
from fedbench.models.resnet import ResNet8
from fedbench.models.transformer import TextTransformer
from fedbench.randomness import generator
from fedbench.training.local import LocalTraining, train_client
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD, Adam, Optimizer

ROWS, CLASSES = 22, 4
TEXTS = Task("text", (6,), CLASSES, vocabulary_size=12, padding_index=0)
LABELS = torch.arange(ROWS) % CLASSES
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, 12, (ROWS, 6), dtype=np.int32))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Block(nn.Module):
    """Draws from every generator, counts its calls, and changes its buffers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.second = nn.utils.parametrizations.spectral_norm(nn.Linear(width, width))
        self.dropout = nn.Dropout(0.3)
        self.calls = 0

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        values = values + self.dropout(self.second(torch.relu(self.norm(self.first(values)))))
        return values * self.calls + (1 + random.random() + float(np.random.rand())) * values.sin()


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.blocks = nn.ModuleList(Block(8) for _ in range(3))
        self.last = nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.embedding(tokens).mean(1)
        for block in self.blocks:
            values = block(values)
        logits: Tensor = self.last(values)
        return logits


def test_blocks_that_are_computed_again_give_the_same_bits() -> None:
    """Gradients, buffers and what is drawn afterwards; a copy of the network recomputes its own blocks."""
    torch.manual_seed(0)
    plain = Stack()
    recomputed = checkpoint_blocks(copy.deepcopy(plain))
    networks = [plain, recomputed, copy.deepcopy(recomputed)]
    for step in range(3):
        seen: list[list[Tensor]] = []
        for network in networks:
            torch.manual_seed(step), random.seed(step), np.random.seed(step)  # type: ignore[func-returns-value]
            network.zero_grad()
            cross_entropy(network(TOKENS.long()), LABELS).backward()
            drawn = [torch.rand(1), torch.tensor(random.random()), torch.tensor(np.random.rand())]
            gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            seen.append([*gradients, *(buffer.clone() for buffer in network.buffers()), *drawn])
        for other in seen[1:]:
            assert all(torch.equal(left, right) for left, right in zip(seen[0], other, strict=True))
    assert [network.blocks[0].calls for network in networks] == [3, 3, 3]


def test_the_blocks_of_a_network() -> None:
    residual = [name for name, _ in blocks(build_module(ResNet8(width=4), Task("image", (8, 8, 3), 4), seed=0))]
    assert residual == ["stages.0.0", "stages.1.0", "stages.2.0"]
    encoder = [name for name, _ in blocks(build_module(TextTransformer(embedding=8, layers=2), TEXTS, seed=0))]
    assert encoder == ["layers.0", "layers.1"]
    nested = nn.Sequential(nn.Sequential(nn.Linear(1, 1), Block(2)), nn.Linear(1, 1))
    assert [name for name, _ in blocks(nested)] == ["0.1"]
    for model, task in ((Lstm(hidden=4), TEXTS), (Mlp(), Task("array", (3,), 2))):
        with pytest.raises(ModelError, match=r"^local.checkpoint_activations=true: \w+ has no blocks, which are"):
            blocks(build_module(model, task, seed=0))


def flat(lowered: bool = False, checkpointed: bool = False, network: nn.Module | None = None) -> FlatModel:
    torch.manual_seed(1)
    module = network or TextTransformer(embedding=8, layers=2, feedforward=4).build(TEXTS)
    layout = parameter_layout(module, derive_layer_groups(module, TEXTS))
    return FlatModel(checkpoint_blocks(module) if checkpointed else module, layout, lowered=lowered)


def train(
    model: FlatModel, optimizer: Optimizer, objective: Objective, groups: tuple[int, ...] | None = None, **more: Any
) -> float:
    settings = LocalTraining(optimizer, objective, batch_size=8, epochs=2, steps=None, bf16=False, seed=3)
    return train_client(
        model, TOKENS, LABELS, np.arange(ROWS), lambda batch, _: batch.long(), settings, anchor=model.vector.clone(),
        groups=model.layout.all_groups if groups is None else groups, round_index=0, client=0, lr_factor=1.0, **more,
    ).loss  # fmt: skip


@pytest.mark.parametrize("groups", [None, (0,), (2, 3)])
@pytest.mark.parametrize("lowered", [False, True])
def test_a_client_trains_to_the_same_bits_with_checkpointed_blocks(
    groups: tuple[int, ...] | None, lowered: bool
) -> None:
    plain, recomputed = flat(lowered), flat(lowered, checkpointed=True)
    losses = [train(model, SGD(lr=0.3), Objective(), groups) for model in (plain, recomputed)]
    assert losses[0] == losses[1]
    assert torch.equal(plain.vector, recomputed.vector)


def test_moon_compares_features_of_checkpointed_networks() -> None:
    vectors = []
    for checkpointed in (False, True):
        model = flat(checkpointed=checkpointed)
        train(model, SGD(lr=0.3), Moon().objective(), state={"previous": torch.linspace(-1, 1, model.layout.size)})
        vectors.append(model.vector)
    assert torch.equal(*vectors)


class Normed(nn.Module):
    """A perceptron with BatchNorm, over the mean of the tokens' vectors and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.first = nn.Embedding(12, 8), nn.Linear(8, 8)
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, CLASSES)
        self.register_buffer("shift", torch.linspace(0, 1, 8), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.embedding(tokens).mean(1) + self.shift
        logits: Tensor = self.last(torch.relu(self.norm(self.first(values))))
        return logits


@pytest.mark.parametrize("optimizer", [SGD(lr=0.3, momentum=0.5), Adam()])
def test_bfloat16_steps_change_float32_masters(optimizer: Optimizer) -> None:
    """Against a plain loop: a bfloat16 copy, its gradients in float32, an optimizer of PyTorch's over the masters."""
    torch.manual_seed(2)
    network = Normed()
    model = flat(lowered=True, network=copy.deepcopy(network))
    train(model, optimizer, Objective())
    masters = {name: nn.Parameter(value.detach().clone()) for name, value in network.named_parameters()}
    stepper = optimizer.make(list(masters.values()), 1.0)
    working = copy.deepcopy(network).bfloat16()
    working.norm.float()
    for chosen in minibatches(generator(3, "minibatches", 0, 0), ROWS, 8, epochs=2, steps=None, smallest=2):
        with torch.no_grad():
            for name, parameter in working.named_parameters():
                parameter.copy_(masters[name])
        working.zero_grad()
        cross_entropy(working(TOKENS[chosen].long()).float(), LABELS[chosen]).backward()
        for name, parameter in working.named_parameters():
            assert parameter.grad is not None
            masters[name].grad = parameter.grad.float()
        stepper.step()
    for name, value in masters.items():
        assert torch.equal(model.module.get_parameter(name), value), name
        assert model.module.get_parameter(name).dtype == torch.float32
    assert torch.equal(model.module.get_buffer("norm.running_var"), working.norm.running_var)
    assert model.module.get_buffer("shift").dtype == torch.float32


def test_bfloat16_parameters_learn_what_float32_ones_learn() -> None:
    losses = [train(flat(lowered), SGD(lr=0.1), Objective()) for lowered in (False, True)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_moon_compares_features_of_bfloat16_networks() -> None:
    losses = []
    for lowered in (False, True):
        model = flat(lowered)
        state = {"previous": torch.linspace(-1, 1, model.layout.size)}
        losses.append(train(model, SGD(lr=0.1), Moon().objective(), state=state))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


class Mixing(Normed):
    """Makes a float32 tensor in its forward pass."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.last(self.embedding(tokens).mean(1) + torch.ones(8, device=self.last.weight.device))
        return logits


class Centred(Normed):
    """Sends a buffer that is no running statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(8))


class Counting(Normed):
    """Changes a buffer that it does not save."""

    def forward(self, tokens: Tensor) -> Tensor:
        self.shift.add_(1)
        return super().forward(tokens)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Mixing(), r"^local.precision=bf16-parameters: Mixing cannot compute in bfloat16 \(.*\); set float32 or bf16$"),
        (Centred(), r"^local.precision=bf16-parameters: Centred sends its buffer 'centre', which must not be rounded"),
    ],
)
def test_a_network_that_cannot_be_rounded_is_refused_in_one_line(network: nn.Module, message: str) -> None:
    check_lowered(Normed(), TEXTS)
    with pytest.raises(ModelError, match=message):
        check_lowered(network, TEXTS)


def test_a_network_that_changes_a_rounded_buffer_is_refused_and_left_in_float32() -> None:
    model = flat(lowered=True, network=Counting())
    with pytest.raises(ModelError, match=r"Counting changes its buffer 'shift' as it trains, which must not be round"):
        train(model, SGD(lr=0.1), Objective())
    assert {tensor.dtype for tensor in (*model.module.parameters(), model.module.get_buffer("shift"))} == {
        torch.float32
    }


class LiveBytes(TorchDispatchMode):
    """Measures the most bytes of tensors' storages that are there at a time, of those made within it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = WeakIdKeyDictionary()  # type: ignore[no-untyped-call]
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.live[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self.live.values()))
        return result


DEEP = TextTransformer(embedding=32, layers=6, feedforward=64, dropout=0.0)
LONG = Task("text", (32,), CLASSES, vocabulary_size=50, padding_index=0)
BATCH = 16


def measured_step(checkpointed: bool, lowered: bool) -> int:
    """Peak bytes of a step on the CPU: what is held between steps, and what a step makes."""
    module = build_module(DEEP, LONG, seed=0)
    layout = parameter_layout(module, derive_layer_groups(module, LONG))
    model = FlatModel(checkpoint_blocks(module) if checkpointed else module, layout, lowered=lowered)
    model.activate(layout.all_groups)
    tokens, labels = torch.ones(BATCH, 32, dtype=torch.int64), torch.zeros(BATCH, dtype=torch.int64)
    module.train()
    held = model.vector.nbytes + sum(buffer.nbytes for buffer in module.buffers()) + tokens.nbytes + labels.nbytes
    if lowered:
        held += model.vector.nbytes // 2 + model.gradient.nbytes
    with LiveBytes() as counted, model.computing():
        cross_entropy(module(tokens), labels).backward()
    return held + counted.peak


@pytest.mark.parametrize(("checkpointed", "lowered"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_foreseen_peak_is_the_measured_one(checkpointed: bool, lowered: bool) -> None:
    """But for short-lived gradients of activations, which are left out: a few times the largest of these."""
    module = build_module(DEEP, LONG, seed=0)
    groups = derive_layer_groups(module, LONG)
    foreseen = peak_training_bytes(
        module, groups, LONG, range(len(groups)), BATCH, 0, checkpointed=checkpointed, lowered=lowered
    )
    attention_weights = 4 * BATCH * 2 * 32 * 32
    assert 0 <= measured_step(checkpointed, lowered) - foreseen < 3 * attention_weights


@pytest.mark.slow
def test_checkpointing_takes_less_memory_and_one_more_pass_through_the_blocks() -> None:
    module = build_module(DEEP, LONG, seed=0)
    groups = derive_layer_groups(module, LONG)
    everything = range(len(groups))
    plain, recomputed = (
        peak_training_bytes(module, groups, LONG, everything, BATCH, 0, checkpointed=checkpointed)
        for checkpointed in (False, True)
    )
    assert recomputed < 0.4 * plain
    once, again = StepFlops(module, groups, LONG), StepFlops(checkpoint_blocks(copy.deepcopy(module)), groups, LONG)
    extra = again.flops(everything, BATCH) - once.flops(everything, BATCH)
    classifier = 2 * BATCH * CLASSES * 32
    assert extra == once.forward_flops(BATCH) - classifier
    assert again.forward_flops(BATCH) == once.forward_flops(BATCH)
    assert again.uncounted == once.uncounted


def test_blocks_before_all_that_trains_keep_nothing() -> None:
    module = build_module(DEEP, LONG, seed=0)
    groups = derive_layer_groups(module, LONG)
    shallow, deep = (
        peak_training_bytes(module, groups, LONG, [group], BATCH, 0, checkpointed=True)
        for group in (1, len(groups) - 1)
    )
    assert deep < shallow


RESIDUAL = ("model=resnet8", "model.width=4", "rounds=1", "schedule=full", "data.clients=2", "runtime.executor=inline")


@pytest.mark.slow
def test_runs_with_checkpointed_blocks_have_the_same_hash_and_the_foreseen_flops(no_figures: None) -> None:
    plain = run(config(*RESIDUAL)).summary
    checkpointed = config(*RESIDUAL, "local.checkpoint_activations=true")
    recomputed = run(checkpointed).summary
    assert recomputed["model_sha256"] == plain["model_sha256"]
    foreseen = estimate(checkpointed)
    assert plain["client_flops"] < recomputed["client_flops"] == foreseen.total.client_flops
    assert foreseen.rounds_by_kind[0].peak_bytes < estimate(config(*RESIDUAL)).rounds_by_kind[0].peak_bytes
    assert checkpointed.digest() != config(*RESIDUAL).digest()


CONVOLUTIONAL = ("rounds=1", "schedule=full", "data.clients=2", "runtime.executor=inline")


def test_runs_with_bfloat16_parameters_send_float32_and_are_refused_where_the_model_cannot(
    no_figures: None,
) -> None:
    overrides = (*CONVOLUTIONAL, "local.precision=bf16-parameters")
    lowered, plain = run(config(*overrides)).summary, run(config(*CONVOLUTIONAL)).summary
    assert lowered["model_sha256"] != plain["model_sha256"]
    assert lowered["uplink_bytes"] == plain["uplink_bytes"]
    assert lowered["final_accuracy"] == pytest.approx(plain["final_accuracy"], abs=0.1)
    with pytest.raises(ModelError, match=r"bf16-parameters: Odd sends its buffer 'centres', which must not be rounded"):
        run(config("model=odd_modules:Odd", *CONVOLUTIONAL, "local.precision=bf16-parameters"))
    with pytest.raises(ModelError, match=r"checkpoint_activations=true: ConvBatchNorm has no blocks"):
        run(config(*CONVOLUTIONAL, "local.checkpoint_activations=true"))


@pytest.mark.parametrize("precision", ["bf16", "bf16-parameters"])
def test_strides_over_too_small_maps_are_refused_in_bfloat16(precision: str) -> None:
    """PyTorch's convolution on a CPU then gives wrong gradients."""
    message = f"^local.precision={precision}: stages.2.0.conv1 strides by 2 over maps of 1x1, where PyTorch's bfloat16"
    with pytest.raises(ModelError, match=message):
        run(config(*RESIDUAL, f"local.precision={precision}"))
