"""Federated averaging in pfl-research (github.com/apple/pfl-research): rounds on request, for `test_round_cost.py`.

Run as a script by a Python that has pfl-research, one process for each rank of torch.distributed; it prints a line when
it is ready and after each round, and begins a round when it reads a line:

    RANK=0 WORLD_SIZE=2 ... python pfl_rounds.py DATA.npz NETWORK FORMAT BATCH_SIZE
"""

import os
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from plain_networks import FORMATS, NETWORKS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

ROUNDS = 100_000
LEARNING_RATE = 0.05


class Classifier(nn.Module):
    """A network with the two functions that pfl-research asks for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        self.train()
        return cross_entropy(self.network(images), labels)

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        return {}


class Rounds(TrainingProcessCallback):
    """Says that a round is done, and waits until the next one is asked for; without a line to read, training ends."""

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        self._wait()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        return not self._wait(), Metrics()

    def _wait(self) -> bool:
        print("ready", flush=True)
        return bool(sys.stdin.readline())


def main(file: str, network: str, memory_format: str, batch_size: int) -> None:
    torch.set_num_threads(1)
    with np.load(file) as arrays:
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).float() / 255
        labels, borders = torch.from_numpy(arrays["labels"]), arrays["borders"]
    images = images.contiguous(memory_format=FORMATS[memory_format])
    users = {
        user: PyTorchTensorDataset((images[begin:end], labels[begin:end]))
        for user, (begin, end) in enumerate(pairwise(borders))
    }
    module = Classifier(NETWORKS[network]().to(memory_format=FORMATS[memory_format]))
    model = PyTorchModel(
        module,
        lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, fused=True),
        torch.optim.SGD(module.parameters(), lr=1.0),
    )
    sampler = get_user_sampler("minimize_reuse", list(users))
    data = FederatedDataset(lambda user: users[user], sampler, {user: len(dataset) for user, dataset in users.items()})
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=ROUNDS,
            evaluation_frequency=ROUNDS,
            train_cohort_size=len(users),
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=data, val_data=data),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=batch_size),
        callbacks=[Rounds()],
    )


if __name__ == "__main__":
    os.nice(int(os.environ["NICENESS"]))
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
