"""Asynchronous runs against plain PyTorch."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from arrival_runs import followed
from async_cases import (
    ONE_WORKER,
    PERCEPTRON,
    events_of,
    initial,
    inline,
)
from torch.nn.functional import cross_entropy

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import Result, run
from fedbench.randomness import generator

pytestmark = pytest.mark.usefixtures("run_folder")


def batches_of(config: ExperimentConfig, client: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A client's minibatches, epoch after epoch."""
    federation = load_federation(config)
    rows, data = federation.rows[client], federation.data
    assert data.mean is None, "digits are used as they are"
    epoch = 0
    while True:
        order = rows[generator(config.seed, "minibatches", epoch, client).permutation(len(rows))]
        for start in range(0, len(rows), config.local.batch_size):
            chosen = order[start : start + config.local.batch_size]
            images = torch.tensor(data.train.inputs[chosen]).permute(0, 3, 1, 2) / 255
            yield images, torch.tensor(data.train.labels[chosen])
        epoch += 1


def by_pytorch(config: ExperimentConfig, steps: int, **options: Any) -> dict[str, torch.Tensor]:
    """torch.optim.SGD on the sum of all clients' minibatch gradients: what its model comes to.

    Args:
        options: of the optimizer.
    """
    module = initial(config)
    optimizer = torch.optim.SGD(module.parameters(), lr=config.local.optimizer.lr, **options)
    clients = [batches_of(config, client) for client in range(config.data.clients)]
    for _ in range(steps):
        optimizer.zero_grad()
        for batches in clients:
            images, labels = next(batches)
            cross_entropy(module(images), labels).backward()
        optimizer.step()
    return module.state_dict()


def assert_same_model(result: Result, expected: dict[str, torch.Tensor]) -> None:
    found = result.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=name)


WORKERS_OF_PYTORCH = {
    "ormo": ("algorithm=ormo", "algorithm.momentum=0.8"),
    "asgdm": ("algorithm=asgdm", "algorithm.momentum=0.8"),
    "asgd": ("algorithm=asgd",),
}


@pytest.mark.parametrize("model", [(), PERCEPTRON], ids=["statistics", "perceptron"])
@pytest.mark.parametrize("name", WORKERS_OF_PYTORCH)
def test_one_worker_is_sgd_as_pytorch_has_it(name: str, model: Sequence[str]) -> None:
    """Running statistics too: with one worker they are those of a sequential run."""
    config = inline(*ONE_WORKER, *model, *WORKERS_OF_PYTORCH[name], "local.optimizer.weight_decay=0.01")
    momentum = 0.0 if name == "asgd" else 0.8
    result = run(config)
    assert_same_model(result, by_pytorch(config, 12, momentum=momentum, weight_decay=0.01))
    assert result.history["train_loss"].to_pylist()[-1] < result.history["train_loss"].to_pylist()[0]


@pytest.mark.parametrize(("name", "nesterov"), [("ssgdm", False), ("ssgd-nesterov", True)])
def test_lock_steps_are_synchronous_sgd_on_the_summed_gradient(name: str, nesterov: bool) -> None:
    """Whatever order the workers come in, and also where rounds end within a lock-step."""
    config = inline(*PERCEPTRON, "data.clients=3", f"algorithm={name}", "delays.arrivals_per_round=4")
    result = run(config)
    assert [event["worker"] for event in events_of(result)] != [0, 1, 2] * 4
    assert_same_model(result, by_pytorch(config, 4, momentum=0.9, nesterov=nesterov))


@pytest.mark.parametrize("work", [(), ("local.steps=1",)], ids=["gradient", "delta"])
def test_the_learning_rate_is_that_of_the_round(work: Sequence[str]) -> None:
    """Of a client's own steps, or on its gradient: with one worker there is no round in between."""
    schedule = ("local.lr_schedule=step", "local.lr_schedule.milestones=[1]", "local.lr_schedule.gamma=0.5")
    config = inline(*ONE_WORKER, *PERCEPTRON, "algorithm=asgd", "rounds=2", *schedule, *work)
    module = initial(config)
    batches = first_of_each_epoch(config) if work else batches_of(config, 0)
    for rate in [0.05] * 4 + [0.025] * 4:
        optimizer = torch.optim.SGD(module.parameters(), lr=rate)
        images, labels = next(batches)
        optimizer.zero_grad()
        cross_entropy(module(images), labels).backward()
        optimizer.step()
    assert_same_model(run(config), module.state_dict())


def first_of_each_epoch(config: ExperimentConfig) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Local training begins a new epoch each time."""
    return itertools.islice(batches_of(config, 0), 0, None, 3)


def test_one_worker_of_a_method_with_estimates_computes_on_them() -> None:
    """DANA-Zero: g at w - eta beta v, then v <- beta v + g and w <- w - eta v."""
    config = inline(*ONE_WORKER, *PERCEPTRON, "algorithm=dana-zero", "algorithm.momentum=0.8")
    module, batches = initial(config), batches_of(config, 0)
    parameters = list(module.parameters())
    values = [parameter.detach().clone() for parameter in parameters]
    momenta = [torch.zeros_like(value) for value in values]
    for images, labels in itertools.islice(batches, 12):
        for parameter, value, momentum in zip(parameters, values, momenta, strict=True):
            parameter.data = value - 0.05 * 0.8 * momentum
        for momentum, gradient in zip(
            momenta, torch.autograd.grad(cross_entropy(module(images), labels), parameters), strict=True
        ):
            momentum.mul_(0.8).add_(gradient)
        for value, momentum in zip(values, momenta, strict=True):
            value -= 0.05 * momentum
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    assert_same_model(run(config), module.state_dict())


def test_smega2_decays_the_weights_of_the_server_and_not_the_estimate_that_the_worker_has() -> None:
    """One worker: g at w - eta beta m, then g <- g + lambda w, w <- w - eta (g + beta m), m <- beta m + g."""
    decay = 0.3
    method = ("algorithm=smega2", "algorithm.momentum=0.8", f"local.optimizer.weight_decay={decay}")
    config = inline(*ONE_WORKER, *PERCEPTRON, *method)
    module, batches = initial(config), batches_of(config, 0)
    parameters = list(module.parameters())
    values = [parameter.detach().clone() for parameter in parameters]
    momenta = [torch.zeros_like(value) for value in values]
    for images, labels in itertools.islice(batches, 12):
        for parameter, value, momentum in zip(parameters, values, momenta, strict=True):
            parameter.data = value - 0.05 * 0.8 * momentum
        gradients = torch.autograd.grad(cross_entropy(module(images), labels), parameters)
        for gradient, value, momentum in zip(gradients, values, momenta, strict=True):
            decayed = gradient + decay * value
            value -= 0.05 * (decayed + 0.8 * momentum)
            momentum.mul_(0.8).add_(decayed)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    assert_same_model(run(config), module.state_dict())


def test_one_worker_with_local_training_is_centralised_training() -> None:
    """Each task is an epoch; deltas, applied as they are, add up to its end."""
    config = inline("data.clients=1", "delays.arrivals_per_round=2", "algorithm=asgd", "local.epochs=1")
    result = run(config)
    assert_same_model(result, by_pytorch(config, 3 * 2 * 3))
    assert result.history["epochs"].to_pylist() == [2.0, 4.0, 6.0]


def test_ca2fl_keeps_the_answers_of_clients_and_not_of_slots() -> None:
    """Five clients take turns in three slots; each answers with one step on the first minibatch of an epoch."""
    config = inline(
        *PERCEPTRON,
        "algorithm=ca2fl",
        "algorithm.buffer_size=2",
        "local.steps=1",
        "data.clients=5",
        "delays.concurrency=3",
        "delays.arrivals_per_round=8",
    )
    result = run(config)
    module, visits = initial(config), [0] * 5
    models = [torch.nn.utils.parameters_to_vector(module.parameters()).detach()]
    cached, buffer = torch.zeros(5, len(models[0])), []
    for event in events_of(result):
        client = event["client"]
        torch.nn.utils.vector_to_parameters(models[event["index"] // 2], module.parameters())
        images, labels = next(itertools.islice(batches_of(config, client), 3 * visits[client], None))
        visits[client] += 1
        gradients = torch.autograd.grad(cross_entropy(module(images), labels), list(module.parameters()))
        buffer.append((client, 0.05 * torch.nn.utils.parameters_to_vector(gradients)))
        if len(buffer) == 2:
            direction = cached.mean(dim=0) + sum(delta - cached[i] for i, delta in buffer) / 2
            models.append(models[-1] - direction)
            for i, delta in buffer:
                cached[i] = delta
            buffer = []
    assert min(visits) > 1, "every client has been calibrated with its own answer"
    torch.nn.utils.vector_to_parameters(models[-1], module.parameters())
    for name, tensor in result.state_dict().items():
        torch.testing.assert_close(tensor, module.state_dict()[name], rtol=0, atol=1e-6, msg=name)


def test_a_client_that_keeps_its_statistics_has_those_of_all_its_tasks() -> None:
    """With one worker those of a sequential run, by which the model is scored, too."""
    config = inline(*ONE_WORKER, "algorithm=asgd", "local.batchnorm=local")
    done, expected = followed(config), by_pytorch(config, 12)
    module, data = initial(config), done.problem.federation.data
    module.load_state_dict(expected)
    with torch.inference_mode():
        outputs = module.eval()(torch.tensor(data.test.inputs).permute(0, 3, 1, 2) / 255)
        loss = float(cross_entropy(outputs, torch.tensor(data.test.labels)))
    assert done.rows[-1].test_loss == pytest.approx(loss, rel=1e-4)
