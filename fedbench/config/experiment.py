"""The configuration of an experiment: sections with defaults, which are checked together before anything starts.

A preset or file is merged over the built-in defaults, and dotted overrides over both (`fedbench.config.merge`); the
result is checked by pydantic, which refuses unknown keys. Each exchangeable part has parameters of its own (see
`fedbench.components.base`).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.crossed import Crossed, asynchronous_part
from fedbench.components.base import Component, Section, explain, keys_beside
from fedbench.components.catalogue import DEFAULTS, make_component
from fedbench.components.own_code import own_code
from fedbench.config.alias import without_alias
from fedbench.config.analysis import AnalysisSection
from fedbench.config.device_table import with_figures
from fedbench.config.identity import digest, what_matters
from fedbench.config.merge import overlaid, parse_overrides, read_source
from fedbench.config.python_values import override_texts
from fedbench.config.runtime import RuntimeSection
from fedbench.config.tracking import TrackingSection
from fedbench.config.yaml_text import dump_yaml, name_of
from fedbench.data.augmentation import Augmentation, Normalization
from fedbench.data.base import Dataset
from fedbench.data.partition import Partition
from fedbench.errors import ConfigError
from fedbench.models.base import Model
from fedbench.planning.delays import DelaysSection
from fedbench.planning.exchange import Exchange
from fedbench.planning.participation import ParticipationSection
from fedbench.planning.schedules import Schedule
from fedbench.protocol.compression import Compression
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.tasks.kinds import TaskName
from fedbench.training.metric_names import check_names
from fedbench.training.optimizers import LearningRate, Optimizer


def _component(kind: str, base: type[Component]) -> Any:
    return BeforeValidator(partial(make_component, kind, base))


AnyDataset = Annotated[SerializeAsAny[Dataset], _component("dataset", Dataset)]
AnyPartition = Annotated[SerializeAsAny[Partition], _component("partition", Partition)]
AnyModel = Annotated[SerializeAsAny[Model], _component("model", Model)]
AnyExchange = Annotated[SerializeAsAny[Exchange], _component("exchange", Exchange)]
AnySchedule = Annotated[SerializeAsAny[Schedule], _component("schedule", Schedule)]
AnyAlgorithm = Annotated[SerializeAsAny[Algorithm], _component("algorithm", Algorithm)]
AnyServer = Annotated[SerializeAsAny[Algorithm], _component("server", Algorithm)]
AnyCompression = Annotated[SerializeAsAny[Compression], _component("compression", Compression)]
AnyOptimizer = Annotated[SerializeAsAny[Optimizer], _component("optimizer", Optimizer)]
AnyLearningRate = Annotated[SerializeAsAny[LearningRate], _component("lr_schedule", LearningRate)]


def _as_list(value: object) -> object:
    """One name as a list of names."""
    return [value] if isinstance(value, str) else value


def _whole_or_auto(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return _whole_or_auto(int(value))
    if value != "auto" and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        raise ValueError("must be a whole number of at least 1, or auto (the length of the schedule)")
    return value


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
            regression with predictions, of next_token and segmentation with logits).
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


class ExperimentConfig(Section):
    """One experiment, complete and checked.

    Attributes:
        name: Name of the run, in its directory and on MLflow's pages; a preset's or file's name unless it is set.
        seed: Decides every random draw: initial model, partition, participants, minibatches.
        rounds: Number of rounds, or auto: as many as the schedule has.
        data: The data set, and how it is divided over the clients.
        task: What is learned, which decides the loss and the metric that runs are judged by: classification (accuracy),
            multilabel (macro F1), regression (MAE), next_token (perplexity), or segmentation (mean IoU). null: what the
            data have labels for. Text serves next_token by itself, and classes that are numbers serve regression.
        model: The network.
        local: What a client does in a round.
        algorithm: The federated method.
        server: Another method's server rule, in place of the algorithm's. null: the algorithm's rule.
        schedule: Which layer groups are trained in which round.
        exchange: Which layer groups are sent and combined in which round. null: as the algorithm has it, which are the
            trained ones unless its description says otherwise. Parameters without a name are those of that exchange.
        update: What is done to an update before it is sent: clipping, noise, compression.
        participation: Which clients take part in a round.
        delays: How long clients' work takes on the virtual clock, and when they are there.
        evaluation: How the global model is scored.
        analysis: What is measured of the training while it goes on; changes no result.
        runtime: Where and how the experiment runs; changes no result.
        tracking: What is recorded to MLflow.
        output: Where files are written.

    >>> config = ExperimentConfig.load("quickstart", ["rounds=3", "seed=7"])
    >>> config.rounds, config.seed, config.schedule.name
    (3, 7, 'sequential')
    """

    name: str = Field(default="experiment", max_length=200, pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = Field(default=0, ge=0, lt=2**63)
    rounds: Annotated[int | Literal["auto"], BeforeValidator(_whole_or_auto)] = "auto"
    data: DataSection = DataSection()
    task: TaskName | None = None
    model: AnyModel = Field(default=DEFAULTS["model"], validate_default=True)
    local: LocalSection = LocalSection()
    algorithm: AnyAlgorithm = Field(default=DEFAULTS["algorithm"], validate_default=True)
    server: AnyServer | None = None
    schedule: AnySchedule = Field(default=DEFAULTS["schedule"], validate_default=True)
    exchange: AnyExchange | None = None
    update: UpdateSection = UpdateSection()
    participation: ParticipationSection = ParticipationSection()
    delays: DelaysSection = DelaysSection()
    evaluation: EvaluationSection = EvaluationSection()
    analysis: AnalysisSection = AnalysisSection()
    runtime: RuntimeSection = RuntimeSection()
    tracking: TrackingSection = TrackingSection()
    output: OutputSection = OutputSection()

    @field_validator("delays", mode="before")
    @classmethod
    def _figures_of_devices(cls, value: object) -> object:
        """The devices and links that profiles name stand in the configuration with their figures."""
        if isinstance(value, dict) and value.get("profile") is not None:
            return value | {"profile": with_figures(value["profile"])}
        return value

    @field_validator("exchange", mode="before")
    @classmethod
    def _of_the_method(cls, value: object, info: ValidationInfo) -> object:
        """Parameters without a name are those of the exchange that the method takes by itself."""
        if not isinstance(value, dict) or "name" in value or "algorithm" not in info.data:
            return value
        return Crossed.of(info.data["algorithm"], info.data.get("server")).exchange().model_dump() | value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        participants, clients = self.participation.clients_per_round, self.data.clients
        if participants is not None and participants > clients:
            raise ValueError(f"participation.clients_per_round={participants}: more than data.clients={clients}")
        if (concurrency := self.delays.concurrency) is not None and concurrency > clients:
            raise ValueError(f"delays.concurrency={concurrency}: more than data.clients={clients}")
        actors, cohort = self.runtime.actors, self.participation.size(clients)
        if actors is not None and actors > cohort:
            raise ValueError(f"runtime.actors={actors}: more than the {cohort} clients of a round; the rest would idle")
        sampler = self.participation.sampler.name
        if sampler != DEFAULTS["sampler"] and cohort == clients and not self.asynchronous:
            raise ValueError(
                f"participation.sampler={sampler}: has no effect where all {clients} clients take part; set "
                "participation.clients_per_round"
            )
        attack = self.participation.byzantine
        if attack is not None and not attack.attackers(clients, self.seed):
            raise ValueError(
                f"participation.byzantine.share={attack.share}: of {clients} clients that is none; raise it, or leave "
                "participation.byzantine out"
            )
        if self.local.precision == "tf32" and self.runtime.device == "cpu":
            raise ValueError("local.precision=tf32: has no effect with runtime.device=cpu; set float32")
        if self.runtime.slots > 1 and self.asynchronous:
            raise ValueError(f"runtime.slots={self.runtime.slots}: has no effect in an asynchronous run; leave it out")
        if (kept := self.runtime.keep_messages) and kept[-1] >= clients:
            raise ValueError(f"runtime.keep_messages={list(kept)}: there is no client {kept[-1]}; 0 to {clients - 1}")
        if self.runtime.keep_messages and self.asynchronous:
            raise ValueError(
                f"runtime.keep_messages={list(kept)}: an asynchronous run has no rounds that its messages belong to; "
                "leave it out"
            )
        if self.asynchronous:
            self.analysis.check_asynchronous()
        if (every := self.evaluation.client_every) is not None and not self.data.client_test_fraction:
            raise ValueError(f"evaluation.client_every={every}: has no effect without data.client_test_fraction")
        if self.evaluation.batchnorm == "aggregate" and self.local.batchnorm == "local":
            raise ValueError(
                "evaluation.batchnorm=aggregate: local.batchnorm=local keeps the statistics with the clients; "
                "use client0 or recalibrate"
            )
        if self.evaluation.batchnorm == "client0" and self.local.batchnorm != "local":
            raise ValueError(
                "evaluation.batchnorm=client0: only with local.batchnorm=local do clients keep statistics of their own"
            )
        return self

    def slots(self) -> int:
        """Number of clients that work at the same time: a round's participants, or K of an asynchronous run."""
        if self.asynchronous:
            return self.delays.concurrency or self.data.clients
        return 1 if self.method.pools_rows else self.participation.size(self.data.clients)

    @property
    def method(self) -> Algorithm:
        """The algorithm, crossed with the server rule that replaces its own, if there is one.

        Raises:
            ConfigError: algorithm and server rule make no sense together.
        """
        return Crossed.of(self.algorithm, self.server)

    @property
    def chosen_exchange(self) -> Exchange:
        """The exchange: the configured one, or the algorithm's."""
        return self.exchange or self.method.exchange()

    @property
    def asynchronous(self) -> AsyncAlgorithm | None:
        """The method whose state machine applies single updates as they arrive; None for a run in rounds."""
        return asynchronous_part(self.method)

    @classmethod
    def load(
        cls,
        source: "str | Path | Mapping[str, Any] | ExperimentConfig | None" = None,
        overrides: Sequence[str] | Mapping[str, Any] = (),
    ) -> "ExperimentConfig":
        """Merge a preset, a YAML file or nested values with overrides, and check the result.

        Args:
            source: a preset's name, the path of a YAML file, nested values, or another configuration; None: the
                built-in defaults.
            overrides: "section.key=value" texts, whose values are YAML; or values by key, nested or dotted.

        Raises:
            ConfigError: one line with the key, the value and what is allowed.

        >>> ExperimentConfig.load("quickstart", {"rounds": 3, "data": {"clients": 4}}).data.clients
        4
        """
        texts = override_texts(overrides)
        if source is None:
            base: dict[str, Any] = {}
        elif isinstance(source, ExperimentConfig):
            base = source.to_mapping()
        elif isinstance(source, Mapping):
            base = parse_overrides(override_texts(source))
        elif isinstance(source, str | Path):
            base = read_source(source)
            base.setdefault("name", name_of(source))
        else:
            raise ConfigError(
                f"a configuration is the name of a preset, the path of a file or nested values, not a "
                f"{type(source).__name__}"
            )
        return cls.from_mapping(overlaid(base, texts))

    @classmethod
    def from_mapping(cls, values: Mapping[Any, Any]) -> "ExperimentConfig":
        """Check nested plain values.

        Raises:
            ConfigError: one line with the key, the value and what is allowed.
        """
        try:
            return cls.model_validate(without_alias({str(key): value for key, value in values.items()}))
        except ValidationError as error:
            raise ConfigError(explain(error, "", keys_beside(cls, error))) from None

    def to_mapping(self) -> dict[str, Any]:
        """All values as nested plain values, from which `from_mapping` makes an equal configuration."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """All values as YAML text, in the order of the sections."""
        text: str = dump_yaml(self.to_mapping())
        return text

    def own_code(self) -> dict[str, str]:
        """{import path: digest of its content} of the parts of one's own, as their files are now.

        Raises:
            ConfigError: a file was changed after this process had imported it.
        """
        return own_code(what_matters(self.to_mapping()))

    def digest(self) -> str:
        """Hex digest of everything that can change the result, which names, places and tracking cannot.

        Raises:
            ConfigError: as for `own_code`, whose content is part of it.
        """
        return digest(self.to_mapping(), self.own_code())
