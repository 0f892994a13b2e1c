"""What client hosts and the server are made from, out of a configuration that has been checked."""

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.messages import HostSpec
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.experiment.federation import Federation, scaling
from fedbench.experiment.initial_model import InitialModel
from fedbench.experiment.keeping import kept_clients
from fedbench.experiment.measured import client_scoring, compares_updates, probing
from fedbench.planning.capacities import Clients
from fedbench.planning.samplers import UNIFORM
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.metric_names import metrics_of
from fedbench.training.minibatches import LocalLength


def host_spec(
    config: ExperimentConfig,
    federation: Federation,
    model: InitialModel,
    table: PartTable,
    length: LocalLength,
    update: UpdatePipeline,
    rounds: int,
) -> HostSpec:
    """What client hosts are made from, each as the only process on its device."""
    local, task, method = config.local, federation.task, config.method
    statistics_stay = keeps_statistics(config)
    mean, std = scaling(config.data, federation.data)
    return HostSpec(
        model=config.model,
        task=task,
        layout=model.layout,
        table=table,
        statistics=model.statistics,
        algorithm=method,
        optimizer=local.optimizer,
        batch_size=local.batch_size,
        epochs=length.epochs,
        steps=length.steps,
        precision=local.precision,
        checkpoint_activations=local.checkpoint_activations,
        keeps_statistics=statistics_stay,
        update=update,
        weight_decay=0.0 if config.asynchronous and config.asynchronous.decays_at_server else weight_decay(config),
        evaluation_statistics=config.evaluation.batchnorm or ("client0" if statistics_stay else "aggregate"),
        evaluation_batch_size=config.evaluation.batch_size,
        augmentation=config.data.augment,
        mean=mean,
        std=std,
        seed=config.seed,
        torch_threads=config.runtime.torch_threads,
        deterministic=config.runtime.deterministic,
        device=config.runtime.device,
        gpu_fraction=1.0,
        slots=config.runtime.slots,
        kept=kept_clients(config),
        step_norms=config.analysis.step_norms,
        probing=probing(config),
        gradient_norms=config.schedule.reads_gradient_norms,
        keeps_layers=config.chosen_exchange.keeps_layers,
        has_global_model=method.has_global_model,
        own_share=config.chosen_exchange.own_share,
        attack=config.participation.byzantine,
        attackers=config.participation.attackers(config.data.clients, config.seed),
        client_scoring=client_scoring(config, rounds, task.target),
        metrics=metrics_of(task.target, config.evaluation.metrics),
        base=model.base,
    )


def server_spec(
    config: ExperimentConfig,
    federation: Federation,
    model: InitialModel,
    table: PartTable,
    length: LocalLength,
    update: UpdatePipeline,
    rounds: int,
    limits: Clients,
) -> ServerSpec:
    """What the server of a run in rounds is made from."""
    return ServerSpec(
        table=table,
        vector=model.vector,
        statistics=model.statistics,
        sizes=federation.sizes,
        cohort_size=config.slots(),
        rounds=rounds,
        seed=config.seed,
        algorithm=config.method,
        schedule=config.schedule,
        exchange=config.chosen_exchange,
        learning_rate=config.local.lr_schedule,
        local=length,
        update=update,
        clients=limits,
        sampler=UNIFORM if config.method.pools_rows else config.participation.sampler,
        compares_updates=compares_updates(config),
        rows_bytes=federation.pooled_bytes,
    )


def keeps_statistics(config: ExperimentConfig) -> bool:
    """Whether running statistics stay with each client."""
    return config.local.batchnorm == "local" or not config.method.has_global_model


def weight_decay(config: ExperimentConfig) -> float:
    """The factor of the L2 penalty of the local optimizer; 0 for an optimizer without one."""
    decay: float = getattr(config.local.optimizer, "weight_decay", 0.0)
    return decay
