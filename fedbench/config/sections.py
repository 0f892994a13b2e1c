"""The sections of a configuration that belong to no other package: data, local, evaluation, update and output."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from fedbench.components.base import Section
from fedbench.components.catalogue import DEFAULTS, checked
from fedbench.data.augmentation import Augmentation, Normalization
from fedbench.data.base import Dataset
from fedbench.data.partition import Partition
from fedbench.protocol.compression import Compression
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.metric_names import check_names
from fedbench.training.optimizers import LearningRate, Optimizer

AnyDataset = Annotated[SerializeAsAny[Dataset], checked("dataset", Dataset)]
AnyPartition = Annotated[SerializeAsAny[Partition], checked("partition", Partition)]
AnyCompression = Annotated[SerializeAsAny[Compression], checked("compression", Compression)]
AnyOptimizer = Annotated[SerializeAsAny[Optimizer], checked("optimizer", Optimizer)]
AnyLearningRate = Annotated[SerializeAsAny[LearningRate], checked("lr_schedule", LearningRate)]


def _as_list(value: object) -> object:
    """One name as a list of names."""
    return [value] if isinstance(value, str) else value


class DataSection(Section):
    """The data set, and how its training rows are divided over the clients.

    Attributes:
        dataset: The data set.
        root: Folder that holds the data sets; not for data that come with a library.
        clients: Number of clients in the population.
        partition: How the training rows are divided over the clients.
        samples_per_client: Rows of each client, where the partition does not decide it. null: all rows are dealt out.
        overlap: Whether each client draws its rows independently of the others, so that clients may share rows.
        augment: Random changes to the training images.
        normalize: Whether to subtract the data set's mean and divide by its standard deviation, channel by channel.
            false: images stay in [0, 1]. null: they are normalised where a mean and a deviation are published.
            {mean: 0.5, std: 0.5}: by these, in units of [0, 1]; a number for all channels, or a list with one for each.
        test_fraction: Share of the rows that is held out for testing, for data without a test split. null: 0.2.
        validation_fraction: Share of the training rows, alike for every class or natural client, that no client trains
            on: the best round, and the best of a sweep, are chosen on them. 0: chosen on the validation split of the
            data where they have one, otherwise on the test split.
        client_test_fraction: Share of each client's rows, in the proportions of its classes, that no client trains on:
            clients are scored on them before and after their training (`evaluation.client_every`). 0: none.
    """

    dataset: AnyDataset = Field(default=DEFAULTS["dataset"], validate_default=True)
    root: Path | None = None
    clients: int = Field(default=10, ge=1)
    partition: AnyPartition = Field(default=DEFAULTS["partition"], validate_default=True)
    samples_per_client: int | None = Field(default=None, ge=1)
    overlap: bool = False
    augment: Augmentation = Augmentation()
    normalize: Annotated[bool | Normalization | None, BeforeValidator(Normalization.of_mapping)] = None
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    client_test_fraction: float = Field(default=0.0, ge=0, lt=1)


class LocalSection(Section):
    """The training of a client in a round that it takes part in.

    Attributes:
        epochs: Passes over the client's data; set epochs or steps. Both null: one pass.
        steps: Minibatches, whatever the client's size; set epochs or steps.
        batch_size: Samples of a minibatch.
        optimizer: The optimizer, which is made anew every round over the active layer groups.
        lr_schedule: Factor on the optimizer's learning rate, by round.
        batchnorm: Whether BatchNorm's running statistics, and other float buffers that the model saves, are sent and
            averaged like the parameters (aggregate), or stay with each client (local). null: aggregate, where the model
            has any.
        precision: float32: all 24 bits, on GPUs too. tf32: on GPUs, convolutions and matrix products round their inputs
            to 11 bits. bf16: the forward pass runs under bfloat16 autocast, all else in float32. bf16-parameters: a
            step computes with parameters and activations in bfloat16, and the optimizer changes float32 parameters;
            activations take half the memory, parameters and their gradients 12 bytes a value in place of 8.
        checkpoint_activations: Whether blocks of the network (items of an nn.Sequential or nn.ModuleList that consist
            of modules) keep their inputs alone, and are computed again in the backward pass: the same result, bit for
            bit, in less memory and with more FLOPs.
    """

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    optimizer: AnyOptimizer = Field(default=DEFAULTS["optimizer"], validate_default=True)
    lr_schedule: AnyLearningRate = Field(default=DEFAULTS["lr_schedule"], validate_default=True)
    batchnorm: Literal["aggregate", "local"] | None = None
    precision: Literal["float32", "tf32", "bf16", "bf16-parameters"] = "float32"
    checkpoint_activations: bool = False

    @model_validator(mode="before")
    @classmethod
    def _not_compiled(cls, values: Any) -> Any:
        """Refuse `compile` by name; every set of layer groups and every size of a minibatch would be compiled anew."""
        if not isinstance(values, dict) or "compile" not in values:
            return values
        if values["compile"] not in (False, None):
            raise ValueError(
                f"compile={str(values['compile']).lower()}: steps are not compiled: torch.compile took 51 to 76 s for "
                "each of three networks, whose steps then took 0.77 (cnn-bn), 0.88 (text-transformer) and 1.49 (cnn) "
                "times as long on one CPU thread; leave it out"
            )
        return {key: value for key, value in values.items() if key != "compile"}

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs={self.epochs} and steps={self.steps}: set one of the two, the other to null")
        return self

    @property
    def round_epochs(self) -> int | None:
        """Passes over the client's data in a round: 1 where nothing is set; None where `steps` counts instead."""
        return 1 if self.epochs is None and self.steps is None else self.epochs


class EvaluationSection(Section):
    """How the global model is scored on the test split, and on the validation split where there is one.

    Attributes:
        every: Rounds from one evaluation to the next; the last round is always evaluated.
        batch_size: Samples of a forward pass.
        batchnorm: BatchNorm's running statistics for scoring: the averaged ones (aggregate), those of client 0
            (client0), or new ones computed on training data (recalibrate). null: aggregate, or client0 where
            local.batchnorm=local.
        per_client: Whether to score the global model on each participant's training rows, too.
        client_every: Rounds from one scoring of the clients on the rows that data.client_test_fraction holds out to the
            next; the last round always has one. Participants are scored before and after their training, all clients
            with the new global model. null: as often as `every`.
        metrics: Metrics beside those that the task always has: of classification top5_accuracy, balanced_accuracy,
            macro_f1, per_class_recall, expected_calibration_error, or of any task one's own by import path: a
            torchmetrics.Metric that is made from the number of outputs and updated with probabilities and labels (of
            regression with predictions, of next_token and segmentation with logits, and labels of -100 where no token
            or pixel counts, which it must leave out).
    """

    every: int = Field(default=1, ge=1)
    batch_size: int = Field(default=500, ge=1)
    batchnorm: Literal["aggregate", "client0", "recalibrate"] | None = None
    per_client: bool = False
    client_every: int | None = Field(default=None, ge=1)
    metrics: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        check_names(metrics)
        return metrics


class OutputSection(Section):
    """The place where files are written.

    Attributes:
        directory: The run directory, which must be empty or not exist. null: runs/NAME-SEED-SHORTID.
    """

    directory: Path | None = None


class UpdateSection(Section):
    """What is done to a client's update before it is sent, in the order of the keys.

    Attributes:
        clip_norm: Largest L2 norm of an update of the parameters; longer ones are scaled down to it. null: no limit.
            Error feedback (topk) adds what earlier updates left out after that.
        noise_multiplier: Gaussian noise for differential privacy. The sum of a round's updates gets noise of standard
            deviation noise_multiplier * clip_norm, an equal share from each participant. null: no noise.
        delta: The delta for which the privacy loss epsilon is reported; only with noise.
        compression: How the update is compressed on its way to the server.
    """

    clip_norm: float | None = Field(default=None, gt=0)
    noise_multiplier: float | None = Field(default=None, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    compression: AnyCompression = Field(default=DEFAULTS["compression"], validate_default=True)

    @model_validator(mode="after")
    def _delta_needs_noise(self) -> Self:
        if self.noise_multiplier is None and self.delta != type(self).model_fields["delta"].default:
            raise ValueError(f"delta={self.delta} has no effect without noise_multiplier; leave it out")
        return self

    def pipeline(self, cohort: int) -> UpdatePipeline:
        """The steps of this section, ready to be applied to the updates of a round with `cohort` participants."""
        std = 0.0
        if self.noise_multiplier is not None and self.clip_norm is not None:
            # The server divides the sum of `cohort` updates by their number; each adds its share of the variance.
            std = self.noise_multiplier * self.clip_norm / math.sqrt(cohort)
        return UpdatePipeline(self.clip_norm, std, self.compression)
