"""How well images were reconstructed: the table, the figures, and the picture."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.analysis.leakage_cases import Case
from fedbench.records.recorded_analysis import ShownTable
from fedbench.tables.seed_statistics import INTERVAL, Spread

MOST_COLUMNS = 8
"""Images in a row of the picture, at most."""

DOTS_PER_INCH, SIDE = 150, 0.8

GAP = 10
"""The share of an image's height that is white between an original and its reconstruction is 1 / GAP."""

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("source", pa.string()),
        ("visible", pa.string()),
        ("parameters", pa.int64()),
        ("image", pa.int32()),
        ("psnr_final", pa.float64()),
        ("psnr_best", pa.float64()),
        ("ssim_final", pa.float64()),
        ("ssim_best", pa.float64()),
        ("distance", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""`leakage.parquet`: one row an image and way to see it; `distance` and `seconds` are those of the whole attack."""


@dataclass(frozen=True)
class Attacked:
    """One attack and what it has found.

    Attributes:
        model: whose run.
        case: what was seen.
        number: the index among the case's victims.
        numbers: psnr_final, psnr_best, ssim_final, ssim_best with one value an image; distance, seconds.
        pictures: original, final, best: float32 [n, C, H, W] in [0, 1].
    """

    model: str
    case: Case
    number: int
    numbers: Mapping[str, Sequence[float]]
    pictures: Mapping[str, npt.NDArray[np.float32]]


def by_case(attacked: Sequence[Attacked]) -> Iterator[tuple[Case, list[Attacked]]]:
    """The attacks of each case, in their order."""
    cases: dict[tuple[str, str], list[Attacked]] = {}
    for attack in attacked:
        cases.setdefault((attack.case.source, attack.case.visible), []).append(attack)
    for attacks in cases.values():
        yield attacks[0].case, attacks


def _values(attacks: Sequence[Attacked], name: str) -> list[float]:
    return [value for attack in attacks for value in attack.numbers[name]]


def leakage_tables(model: str, attacked: Sequence[Attacked]) -> tuple[ShownTable, ShownTable]:
    """PSNR and SSIM: one row for each way to see a client."""
    noise, structure = [], []
    for case, attacks in by_case(attacked):
        final, best = (Spread.of(_values(attacks, f"psnr_{name}")) for name in ("final", "best"))
        alike, best_alike = (Spread.of(_values(attacks, f"ssim_{name}")) for name in ("final", "best"))
        label = f"{case.source}: {case.visible}"
        seen = f"{case.parameters:,}" if case.parameters else "-"
        decibels = (_figures(final, 1), _interval(final), f"{max(final.values):.1f}")
        noise.append((label, (seen, str(final.n), *decibels, _figures(best, 1), f"{max(best.values):.1f}")))
        shares = (_figures(alike, 2), _interval(alike), f"{max(alike.values):.2f}")
        best_shares = (_figures(best_alike, 2), f"{max(best_alike.values):.2f}")
        structure.append((label, (seen, str(final.n), *shares, *best_shares)))
    columns = ("parameters", "images", "final", INTERVAL, "highest", "best", "highest best")
    notes = (
        "PSNR in dB; the higher, the less private. final: at the end of the attack. best: the best on the way, which "
        "nobody can choose without the originals.",
    )
    return (
        ShownTable(f"PSNR of recovered images: {model}", "what is seen", columns, tuple(noise), notes),
        ShownTable(f"SSIM of recovered images: {model}", "what is seen", columns, tuple(structure)),
    )


def _figures(spread: Spread, digits: int) -> str:
    return f"{spread.mean:.{digits}f}"


def _interval(spread: Spread) -> str:
    if spread.interval is None:
        return "-"
    low, high = spread.interval
    digits = 2 if max(map(abs, spread.values)) <= 1 else 1
    return f"{low:.{digits}f} to {high:.{digits}f}"


def metrics_of(attacked: Sequence[Attacked]) -> dict[str, float]:
    """{psnr/MODEL/KEY: mean PSNR of the final images}, with the key of each case; psnr_best and ssim likewise."""
    metrics: dict[str, float] = {}
    for model in dict.fromkeys(attack.model for attack in attacked):
        for case, attacks in by_case([attack for attack in attacked if attack.model == model]):
            for metric, name in (("psnr", "psnr_final"), ("psnr_best", "psnr_best"), ("ssim", "ssim_final")):
                metrics[f"{metric}/{model}/{case.key}"] = Spread.of(_values(attacks, name)).mean
    return metrics


def rows_of(attacked: Sequence[Attacked]) -> pa.Table:
    """All attacks with `SCHEMA`."""
    rows = []
    for attack in attacked:
        numbers = attack.numbers
        for index in range(len(numbers["psnr_final"])):
            rows.append(
                {
                    "model": attack.model,
                    "source": attack.case.source,
                    "visible": attack.case.visible,
                    "parameters": attack.case.parameters,
                    "image": attack.number + index,
                    **{name: numbers[name][index] for name in ("psnr_final", "psnr_best", "ssim_final", "ssim_best")},
                    "distance": next(iter(numbers["distance"]), None),
                    "seconds": numbers["seconds"][0],
                }
            )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def leakage_picture(attacked: Sequence[Attacked]) -> bytes:
    """A PNG: the originals in the first row, and a row of final reconstructions for each way to see the client."""
    from matplotlib.figure import Figure

    rows = [(f"{case.source}\n{case.visible}", _row(attacks)) for case, attacks in by_case(attacked)]
    columns = max(len(images) for _, images in rows)
    figure = Figure(figsize=(2.2 + SIDE * columns, SIDE * 1.5 * len(rows)), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for spots, (label, images) in zip(axes, rows, strict=True):
        spots[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=6)
        for place, spot in enumerate(spots):
            spot.set_xticks([])
            spot.set_yticks([])
            spot.set_frame_on(False)
            if place < len(images):
                pair, decibels = images[place]
                spot.imshow(pair, interpolation="nearest", vmin=0, vmax=1, cmap="gray")
                spot.set_xlabel(f"{decibels:.1f} dB", fontsize=6, labelpad=1)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _row(attacks: Sequence[Attacked]) -> list[tuple[npt.NDArray[np.float32], float]]:
    """(original above reconstruction, its PSNR) for the first images of a case."""
    pairs = []
    for attack in attacks:
        for index, decibels in enumerate(attack.numbers["psnr_final"]):
            both = (attack.pictures["original"][index], attack.pictures["final"][index])
            above, below = (_shown(image) for image in both)
            gap = np.ones((max(1, len(above) // GAP), *above.shape[1:]), np.float32)
            pairs.append((np.concatenate([above, gap, below], axis=0), decibels))
    return pairs[:MOST_COLUMNS]


def _shown(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[C, H, W] as matplotlib draws it: [H, W, 3], or [H, W] where there are not three channels."""
    return image.transpose(1, 2, 0) if image.shape[0] == 3 else image.mean(axis=0)
