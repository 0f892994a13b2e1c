"""Small recorded runs to test with."""

import json
from dataclasses import replace
from pathlib import Path

from fedbench.records.observers import RunDescription
from fedbench.records.schema import ArrivalRecord, ClientRecord, RoundRecord

CLASSES = ("cat", "deer", "dog")


def a_description(directory: Path, clients: int = 4) -> RunDescription:
    return RunDescription(
        config={"name": "demo", "seed": 3, "local": {"lr": 1e-5, "betas": [0.9, 0.99]}, "data": {"root": None}},
        title="FedAvg, sequential schedule, resnet8 on cifar10",
        note="Four clients, **two** cycles.",
        tags={"algorithm": "fedavg", "schedule": "sequential", "dataset": "cifar10", "model": "resnet8"},
        rounds=10,
        directory=str(directory),
        dataset_name="cifar10",
        dataset_source="https://example.org/cifar10.tar.gz",
        dataset_digest="0123456789abcdef" * 4,
        class_names=CLASSES,
        client_class_counts=tuple((client, 2 * client, 5) for client in range(clients)),
        test_samples=100,
        held_out_by_seed=False,
    )


def a_round(index: int, *, evaluated: bool = True, group: int = -1) -> RoundRecord:
    return RoundRecord(
        round=index,
        phase="full" if group < 0 else "partial",
        group=group,
        clients=2,
        train_loss=2.0 / (index + 1),
        test_loss=2.5 / (index + 1) if evaluated else None,
        test_accuracy=1 - 0.9 / (index + 1) if evaluated else None,
        uplink_bytes=1_000_000 + index,
        downlink_bytes=3_000_000,
        transport_bytes=500_000,
        client_flops=2 * 10**12,
        paper_comm_gb=0.5 * (index + 1),
        paper_comp_tflop=0.25 * (index + 1),
        update_norm=0.1,
        wall_seconds=1.5,
        virtual_seconds=None,
        rejected_clients=0,
    )


def an_asynchronous_round(index: int, *, evaluated: bool = True, group: int = -1, arrivals: int = 4) -> RoundRecord:
    """The clock stands at 2.5 s, 5 s, 7.5 s, ...; without arrivals there is no staleness."""
    return replace(
        a_round(index, evaluated=evaluated),
        phase="async",
        group=group,
        clients=arrivals,
        virtual_seconds=2.5 * (index + 1),
        epochs=0.75 * (index + 1),
        staleness_mean=1.25 + index if arrivals else None,
        staleness_max=3 + index if arrivals else None,
    )


def arrival_rows(index: int, each: int = 4) -> list[ArrivalRecord]:
    """The arrivals of one round; the last one is lost."""
    return [
        ArrivalRecord(
            arrival=number,
            round=index,
            worker=number % 3,
            client=number % 5,
            status="lost" if number % each == each - 1 else "ok",
            group=-1,
            index=max(0, number - 2),
            staleness=min(2, number),
            dispatched_seconds=0.5 * number,
            arrived_seconds=0.5 * number + 1.25,
            wall_seconds=0.1,
            uplink_bytes=250_000,
            downlink_bytes=750_000,
        )
        for number in range(each * index, each * (index + 1))
    ]


def client_rows(index: int, clients: int = 2) -> list[ClientRecord]:
    return [
        ClientRecord(index, client, "ok", 50, 5, 0.3, None, 500_000, 1_500_000, 10**12, 0.4)
        for client in range(clients)
    ]


def without_checksums(directory: Path) -> None:
    """Take the checksums out of a run's summary, so that a file which is changed by hand is read for what it is."""
    file = directory / "summary.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in summary.items() if key not in ("files", "checksum")}))
