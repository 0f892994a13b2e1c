"""A table says the same whatever it is written as, and nothing in its texts is taken for markup."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reading import Page, latex_tables, pipe_tables

from fedbench.tables import render
from fedbench.tables.html import table_html
from fedbench.tables.latex import latex
from fedbench.tables.numbers import PERCENT, Number
from fedbench.tables.seed_statistics import Spread
from fedbench.tables.table import Cell, Table

NASTY = "a|b_c & 50% <script>alert(1)</script> {x} $y$ \\z ~ ^ # [w] *v* `u` \"t\" --s 'r' &amp;"

TABLE = Table(
    title="Accuracy: 3 methods & more",
    corner="method",
    columns=("best accuracy (%)", "uplink (MB)", "remark"),
    rows=(
        (
            "fedavg",
            (
                Cell(spread=Spread.of([0.9, 0.91, 0.92]), published=0.95, published_std=0.005, number=PERCENT),
                Cell(spread=Spread.of([1234567.0] * 3), number=Number(2, 1e-6)),
                Cell("plain"),
            ),
        ),
        (
            NASTY,
            (
                Cell(spread=Spread.of([0.5]), published=0.5, number=PERCENT, note="seeds 1 and 2 failed"),
                Cell("failed", note="lr=1e6: no finite update"),
                Cell(NASTY, note="seeds 1 and 2 failed"),
            ),
        ),
        ("fedmr", (Cell(published=0.7, number=PERCENT), Cell(), Cell(spread=Spread.of([1, 3]), number=Number(1)))),
    ),
    notes=("Last note: 100 % of it.",),
    banner="scaled to 0.1 of the rounds and data",
)


def test_markdown_reads_back_cell_by_cell() -> None:
    head, *rows = pipe_tables(render.markdown(TABLE))[0]
    assert head == ["method", *TABLE.columns]
    assert rows[0] == [
        "fedavg",
        "91.00 ± 1.00; published 95.00 ± 0.50: -4.00 (-6.48 to -1.52), told apart (p 0.020)",
        "1.23 ± 0.00",
        "plain",
    ]
    assert rows[1][0] == NASTY
    assert rows[1][1] == "50.00 (n=1); published 50.00: 0.00, too few seeds [1]"
    assert rows[1][2] == "failed [2]"
    assert rows[1][3] == f"{NASTY} [1]"
    assert rows[2] == ["fedmr", "missing; published 70.00", "missing", "2.0 ± 1.4 (n=2)"]


def test_html_reads_back_cell_by_cell_with_scopes() -> None:
    page = Page(table_html(TABLE))
    (table,) = page.root.all("table")
    assert [cell.text for cell in table.all("thead")[0].all("th")] == ["method", *TABLE.columns]
    assert {cell.attributes.get("scope") for cell in table.all("thead")[0].all("th")} == {"col"}
    rows = table.all("tbody")[0].all("tr")
    assert [row.all("th")[0].attributes["scope"] for row in rows] == ["row"] * 3
    assert rows[1].all("th")[0].text == NASTY
    assert (
        rows[0].all("td")[0].text == "91.00 ± 1.00 published 95.00 ± 0.50: -4.00 (-6.48 to -1.52), told apart (p 0.020)"
    )
    assert rows[1].all("td")[2].text == f"{NASTY} 1"
    assert not page.root.all("script")
    for link in page.root.all("a"):
        assert (link.attributes["href"] or "").removeprefix("#") in page.ids


def test_latex_is_balanced_with_a_cell_for_every_column() -> None:
    first, second = latex_tables(latex(TABLE))
    rows = [start + rest[1:] for start, rest in zip(first, second, strict=True)]
    assert [len(row) for row in rows] == [4, 4, 4, 4]
    assert rows[1][1].startswith(r"$91.00 \pm 1.00$")
    assert rows[1][2] == r"$1.23 \pm 0.00$"
    assert rows[2][2] == r"failed\textsuperscript{2}"


def test_every_latex_table_is_as_narrow_as_a_page_in_the_letters_of_computer_modern() -> None:
    words = ("not reached by 1 of 3 seeds", "told apart (p 0.004, adjusted 0.012)", "none")
    figures = [Cell(spread=Spread.of([value, 1.01 * value]), number=Number(2)) for value in (9.1, 123.4, 4567.8)]
    published = Cell(spread=Spread.of([0.9, 0.91]), published=0.95, published_std=0.005, number=PERCENT, note="Why.")
    wide = Table(
        "Many columns",
        "method",
        tuple(f"accuracy of the {place}-th column (GFLOP)" for place in range(10)),
        tuple(
            (label, (*figures, published, *map(Cell, words), *figures))
            for label in ("A: FedPart x FedProx mu=0.01, data.partition.alpha=0.5, sampler=uniform", "B: fedavg, full")
        ),
    )
    for table in (TABLE, wide):
        for part in re.findall(r"\\begin\{table\}.*?\\end\{table\}", latex(table), re.DOTALL):
            assert width_in_points(part) <= 345
    assert sum(len(rows[0]) - 1 for rows in latex_tables(latex(wide))) == 10


def width_in_points(table: str) -> float:
    """The least width of a LaTeX table in the 9 pt of `\\small`, with 3 pt on each side between two columns."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    font = FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/cmr10.ttf")
    font.set_size(9 * 1.03, 72)  # at 9 pt Computer Modern is a little wider than its 10 pt letters made smaller

    def measured(tex: str) -> float:
        small = r"\scriptsize" in tex
        text = re.sub(r"\\(scriptsize|allowbreak\{\}|textsuperscript)", "", tex).replace(r"\pm", "+---")
        font.set_text(re.sub(r"\\\w+\{\}|[\\{}$]", "", text).strip(), 0.0)
        return font.get_width_height()[0] / 64 * (0.82 if small else 1)

    body = re.search(r"\\toprule(.*)\\bottomrule", table, re.DOTALL)
    assert body is not None
    nested = r"\\(begin|end)\{tabular\}(\[[tb]\]\{@\{\}r@\{\}\})?"
    marked = re.sub(nested, lambda match: "<>"[match[1] == "end"], body[1])
    lines = re.sub("<(.*?)>", lambda match: match[1].replace("\\\\", "\n"), marked, flags=re.DOTALL)
    rows = [re.split(r"(?<!\\)&", row.replace(r"\midrule", "")) for row in lines.split(r"\\") if "&" in row]
    columns = [[max(map(measured, cell.strip().split("\n"))) for cell in column] for column in zip(*rows, strict=True)]
    labels = [row[0] for row in rows]
    if "tabularx" in table:
        labels = [piece for label in labels for piece in re.split(r"\\allowbreak\{\}| ", label)]
    return max(map(measured, labels)) + sum(6 + max(column) for column in columns[1:])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    body = latex(TABLE)
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,tabularx}\\begin{document}\n" + body + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_csv_keeps_every_value_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(render.csv(TABLE))))
    assert len(rows) == 9
    first = rows[0]
    assert (first["row"], first["column"], first["unit"], first["n"]) == ("fedavg", "best accuracy (%)", "%", "3")
    assert [float(value) for value in first["values"].split()] == pytest.approx([90, 91, 92])
    assert float(first["std"]) == pytest.approx(1)
    assert (float(first["published"]), float(first["published_std"])) == pytest.approx((95, 0.5))
    assert float(first["difference"]) == pytest.approx(-4)
    assert (float(first["low"]), float(first["high"])) == pytest.approx((88.5159, 93.4841), abs=1e-4)
    assert (float(first["p_value"]), first["told_apart"]) == (pytest.approx(0.0202, abs=1e-4), "true")
    assert rows[3]["row"] == NASTY
    assert rows[3]["std"] == rows[3]["published_std"] == rows[3]["told_apart"] == ""
    assert (rows[4]["text"], rows[4]["n"], rows[4]["note"]) == ("failed", "0", "lr=1e6: no finite update")
    assert (rows[6]["text"], rows[6]["published"], rows[6]["difference"]) == ("missing", "70", "")


def test_the_banner_stands_in_every_output() -> None:
    for text in (render.markdown(TABLE), table_html(TABLE), latex(TABLE), render.csv(TABLE)):
        assert "scaled to 0.1 of the rounds and data" in text


def test_footnotes_stand_once_each_in_every_output() -> None:
    for text in (render.markdown(TABLE), table_html(TABLE), latex(TABLE)):
        assert text.count("seeds 1 and 2 failed") == 1
        assert text.count("no finite update") == 1
        assert "Last note" in text


def test_a_figure_in_the_interval_of_the_mean_is_not_told_apart() -> None:
    near = Cell(spread=Spread.of([0.9, 0.91, 0.92]), published=0.915, number=PERCENT)
    table = Table("t", "", ("c",), (("r", (near,)),))
    assert pipe_tables(render.markdown(table))[0][1] == [
        "r",
        "91.00 ± 1.00; published 91.50: -0.50 (-2.98 to +1.98), not told apart (p 0.478)",
    ]


def test_single_seeds_are_said_to_be_without_a_spread() -> None:
    table = Table("t", "", ("c",), (("r", (Cell(spread=Spread.of([0.5]), published=0.4),)),))
    text = render.markdown(table)
    assert "there is no spread" in text
    assert "±" not in text
    assert "too few seeds" in text


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("t", "", ("a", "b"), (("r", (Cell(),)),))
