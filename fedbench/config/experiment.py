"""The configuration of an experiment: sections with defaults, which are checked together before anything starts.

A preset or file is merged over the built-in defaults, and dotted overrides over both (`fedbench.config.merge`); the
result is checked by pydantic, which refuses unknown keys. Each exchangeable part has parameters of its own (see
`fedbench.components.base`).
"""

from collections.abc import Mapping, Sequence
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
from fedbench.components.base import Section, explain, keys_beside
from fedbench.components.catalogue import DEFAULTS, checked
from fedbench.components.own_code import own_code
from fedbench.config.alias import without_alias
from fedbench.config.analysis import AnalysisSection
from fedbench.config.device_table import with_figures
from fedbench.config.identity import digest, what_matters
from fedbench.config.merge import overlaid, parse_overrides, read_source
from fedbench.config.python_values import override_texts
from fedbench.config.runtime import RuntimeSection
from fedbench.config.sections import DataSection, EvaluationSection, LocalSection, OutputSection, UpdateSection
from fedbench.config.tracking import TrackingSection
from fedbench.config.yaml_text import dump_yaml, name_of
from fedbench.errors import ConfigError
from fedbench.models.base import Model
from fedbench.planning.delays import DelaysSection
from fedbench.planning.exchange import Exchange
from fedbench.planning.participation import ParticipationSection
from fedbench.planning.schedules import Schedule
from fedbench.tasks.kinds import TaskName

AnyModel = Annotated[SerializeAsAny[Model], checked("model", Model)]
AnyExchange = Annotated[SerializeAsAny[Exchange], checked("exchange", Exchange)]
AnySchedule = Annotated[SerializeAsAny[Schedule], checked("schedule", Schedule)]
AnyAlgorithm = Annotated[SerializeAsAny[Algorithm], checked("algorithm", Algorithm)]
AnyServer = Annotated[SerializeAsAny[Algorithm], checked("server", Algorithm)]


def _whole_or_auto(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return _whole_or_auto(int(value))
    if value != "auto" and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        raise ValueError("must be a whole number of at least 1, or auto (the length of the schedule)")
    return value


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
