"""Gradient leakage where the answer is known: closed form, a digit from a whole gradient, local training."""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fedbench.analysis.gradient_attack import AttackSettings, distance, reconstruct
from fedbench.analysis.image_quality import HIGHEST, matched, mean_psnr, psnr, ssim
from fedbench.analysis.visible_update import GradientView, MessageView, Visible
from fedbench.models.base import Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import derive_layer_groups, parameter_layout
from fedbench.training.optimizers import SGD, Adam, AdamW

DLG = AttackSettings("dlg", "lbfgs", 300)
TASK = Task("image", (8, 8, 1), 10)


def unchanged(images: Tensor) -> Tensor:
    return images


def digits(count: int) -> tuple[Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images[:count] / 16, dtype=torch.float32).reshape(count, 1, 8, 8)
    return images, torch.tensor(data.target[:count])


def flat_of(module: nn.Module) -> FlatModel:
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))


def sigmoid_cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 12, 3, padding=1), nn.Sigmoid(), nn.Conv2d(12, 12, 3, 2, 1), nn.Sigmoid(), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(192, 10))
    for parameter in module.parameters():  # DLG's own initialisation
        nn.init.uniform_(parameter, -0.5, 0.5)
    return module


def guess(images: Tensor, seed: int = 1) -> Tensor:
    return torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))


def attack(view: object, images: Tensor, labels: Tensor, settings: AttackSettings = DLG) -> Tensor:
    sent = [view(images, labels).detach()]  # type: ignore[operator]
    found = reconstruct(
        lambda guessed: [view(guessed, labels)],  # type: ignore[operator]
        sent,
        [guess(images)],
        settings,
        partial(mean_psnr, originals=images),
    )
    return found.final


def test_dlg_finds_the_input_of_a_linear_layer_with_bias_that_its_closed_form_gives() -> None:
    """dL/dW_k = (dL/db_k) x for each output k, so that x is a quotient of gradients."""
    torch.manual_seed(0)
    flat = flat_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    images, labels = digits(1)
    view = GradientView(flat, Visible("all", (0,)), unchanged)
    sent = view(images, labels).detach()
    weights, biases = sent[:640].reshape(10, 64), sent[640:]
    closed_form = weights[labels[0]] / biases[labels[0]]
    torch.testing.assert_close(closed_form, images.flatten(), rtol=0, atol=1e-6)
    torch.testing.assert_close(attack(view, images, labels).flatten(), closed_form, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_dlg_finds_a_digit_from_the_whole_gradient_of_a_sigmoid_network_and_less_from_less() -> None:
    flat = flat_of(sigmoid_cnn())
    images, labels = digits(1)
    found = attack(GradientView(flat, Visible("all", flat.layout.all_groups), unchanged), images, labels)
    assert float(psnr(found, images)) > 30
    assert float(ssim(found, images)) > 0.99
    few = Visible("few", flat.layout.all_groups, torch.arange(0, 3000, 300))
    assert float(psnr(attack(GradientView(flat, few, unchanged), images, labels), images)) < 20


@pytest.mark.slow
def test_the_cosine_attack_finds_it_too() -> None:
    flat = flat_of(sigmoid_cnn())
    images, labels = digits(1)
    view = GradientView(flat, Visible("all", flat.layout.all_groups), unchanged)
    settings = AttackSettings("cosine", "adam", 400, total_variation=1e-4)
    assert float(psnr(attack(view, images, labels, settings), images)) > 20


class Attention(nn.Module):
    """A linear layer on what PyTorch's attention makes of the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.output = nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, 1, 8, 8] -> float32 [N, 10]."""
        mixed = nn.functional.scaled_dot_product_attention(self.query(images), images, images)
        return self.output(mixed.mean((1, 2)))


def test_gradients_and_messages_of_attention_can_be_differentiated_again() -> None:
    flat = flat_of(Attention())
    images, labels = digits(2)
    seen = Visible("all", flat.layout.all_groups)
    message = MessageView(flat, flat.layout.all_groups, seen, unchanged, SGD(lr=0.1), 0.1, [torch.arange(2)])
    for view in (GradientView(flat, seen, unchanged), message):
        guessed = guess(images).requires_grad_()
        (slope,) = torch.autograd.grad(view(guessed, labels).square().sum(), guessed)
        assert bool(slope.isfinite().all())
        assert float(slope.abs().max()) > 0


def test_a_gradient_that_is_seen_is_pytorchs_in_the_order_of_the_layout() -> None:
    flat = flat_of(sigmoid_cnn())
    images, labels = digits(3)
    reference = sigmoid_cnn()
    nn.functional.cross_entropy(reference(images), labels).backward()
    slots = {slot.name: slot for slot in flat.layout.slots}
    expected = torch.cat(
        [reference.get_parameter(name).grad.flatten() for name in slots if slots[name].group in (0, 2)]
    )
    subset = torch.tensor([3, 0, 500])
    seen = GradientView(flat, Visible("ends", (0, 2)), unchanged)(images, labels)
    torch.testing.assert_close(seen, expected)
    some = GradientView(flat, Visible("some", (0, 2), subset), unchanged)(images, labels)
    torch.testing.assert_close(some, expected[subset])


OPTIMIZERS = {
    "sgd": (SGD(lr=0.3), torch.optim.SGD, {"lr": 0.3}),
    "momentum": (
        SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (Adam(lr=0.01, weight_decay=0.1), torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": (AdamW(lr=0.01), torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.01}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_message_that_is_seen_is_the_change_that_pytorchs_optimizer_makes(name: str) -> None:
    optimizer, kind, options = OPTIMIZERS[name]
    images, labels = digits(6)
    batches = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5]), torch.tensor([5, 2, 1, 0])]
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 10)
    )
    torch.manual_seed(2)
    flat = flat_of(module)
    trained = flat.activate((0,))
    start = [parameter.detach().clone() for parameter in trained]
    view = MessageView(flat, (0,), Visible("first", (0,)), unchanged, optimizer, options["lr"], batches)
    seen = view(images, labels).detach()
    module.train()
    theirs = kind(trained, **options)
    for batch in batches:
        theirs.zero_grad()
        nn.functional.cross_entropy(module(images[batch]), labels[batch]).backward()
        theirs.step()
    change = torch.cat([(after - before).flatten() for after, before in zip(trained, start, strict=True)])
    torch.testing.assert_close(seen, change.detach(), rtol=1e-4, atol=1e-6)


def test_images_are_found_in_a_message_of_several_local_steps() -> None:
    """Two images, two epochs of SGD: the simulated training explains what the plain gradient does not."""
    flat = flat_of(sigmoid_cnn())
    images, labels = digits(2)
    batches = [torch.tensor([0, 1])] * 2
    everything = Visible("all", flat.layout.all_groups)
    view = MessageView(flat, flat.layout.all_groups, everything, unchanged, SGD(lr=0.1), 0.1, batches)
    found = matched(attack(view, images, labels), images)
    assert float(psnr(found, images).mean()) > 25


def test_several_messages_are_matched_together() -> None:
    ones, twos = torch.ones(4), torch.full((4,), 2.0)
    assert float(distance([ones, twos], [twos, twos], "dlg")) == pytest.approx(0.25)
    assert float(distance([ones, -twos], [twos, twos], "cosine")) == pytest.approx(2.0)


def test_quality_of_equal_and_of_exchanged_images() -> None:
    images, _ = digits(3)
    assert psnr(images, images).tolist() == [HIGHEST] * 3
    torch.testing.assert_close(ssim(images, images), torch.ones(3))
    assert torch.equal(matched(images[[2, 0, 1]], images), images)
    off = images + 0.1
    torch.testing.assert_close(psnr(off, images), torch.full((3,), 20.0))
    assert mean_psnr(off[[1, 0, 2]], images) == pytest.approx(20, abs=1e-3)
