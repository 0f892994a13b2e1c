"""A `Table` as HTML, and the page around it. jinja2 escapes whatever the texts contain."""

from collections.abc import Sequence
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedbench.tables.rank_diagram import RankPicture
from fedbench.tables.render import plain_value, published_and_verdict, slug
from fedbench.tables.table import Cell, Table


@cache
def environment(package: str = "fedbench.tables") -> Environment:
    """jinja2's environment with the templates of a package, and those of this package behind them.

    Args:
        package: a package with a folder `templates`.
    """
    folders = dict.fromkeys((package, "fedbench.tables"))
    return Environment(
        loader=ChoiceLoader([PackageLoader(folder) for folder in folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def table_html(table: Table) -> Markup:
    """A `figure` whose table scrolls in a box of its own where the page is narrow."""
    rows = [(label, [_cell(table, cell) for cell in cells]) for label, cells in table.rows]
    text = environment().get_template("table.html.jinja").render(table=table, name=slug(table), rows=rows)
    return Markup(text + "\n")


def picture_html(picture: RankPicture) -> Markup:
    """A `figure` with the diagram of a ranking and how it is read; only the note where it could not be drawn."""
    note = Markup('<p class="notes">{}</p>').format(picture.note)
    if not picture.files:
        return note
    image = Markup('<img src="{}" alt="{}">').format(picture.data_address, picture.title)
    return Markup('<figure class="picture">{}{}</figure>\n').format(image, note)


def table_page(tables: Sequence[Table], pictures: Sequence[RankPicture] = ()) -> str:
    """Tables, and pictures below them, as a page that needs nothing else; the first one's title is the page's.

    Args:
        tables: at least one.
        pictures: diagrams of ranks.
    """
    body = Markup("").join([*map(table_html, tables), *map(picture_html, pictures)])
    return environment().get_template("page.html.jinja").render(title=tables[0].title, body=body) + "\n"


def _cell(table: Table, cell: Cell) -> dict[str, object]:
    return {
        "words": cell.measured is None,
        "text": plain_value(cell),
        "count": table.count(cell),
        "published": published_and_verdict(table, cell),
        "footnote": table.footnote(cell),
    }
