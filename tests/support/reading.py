"""Readers of what tables are written as, independent of how they are written."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "meta", "link", "hr", "img", "input", "wbr"}


def pipe_tables(text: str) -> list[list[list[str]]]:
    """The pipe tables of a Markdown text: rows of cells, escapes undone, the rule under the head left out."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        assert line.endswith("|")
        cells = [unescaped(cell.strip()) for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line[1:-1])]
        if not inside:
            tables.append([])
        inside = True
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            tables[-1].append(cells)
    return tables


def unescaped(text: str) -> str:
    """Markdown without its backslashes."""
    return re.sub(r"\\([\\`*_|<>\[\]#~&])", r"\1", text)


@dataclass
class Element:
    """One element of a page."""

    tag: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it says, blanks folded."""
        parts = [child if isinstance(child, str) else f" {child.text} " for child in self.children]
        return " ".join("".join(parts).split())

    def all(self, tag: str) -> list["Element"]:
        """Every element of that name in it, in order."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] if child.tag == tag else []
                found += child.all(tag)
        return found


class Page(HTMLParser):
    """Reads HTML strictly: every element is closed, in order, and every id is there once."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("page", {})
        self.ids: list[str] = []
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert len(self._open) == 1, f"not closed: {[element.tag for element in self._open[1:]]}"
        assert len(self.ids) == len(set(self.ids)), "an id is there twice"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        if identity := element.attributes.get("id"):
            self.ids.append(identity)
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        opened = self._open.pop()
        assert opened.tag == tag, f"<{opened.tag}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def latex_tables(text: str) -> list[list[list[str]]]:
    """The rows of each table of a LaTeX text, after checking that braces and environments are balanced.

    Lines within a cell are joined by blanks.
    """
    bare = re.sub(r"\\[\\{}%&$#_]", lambda match: "@@" if match[0] != "\\\\" else "\\\\", text)
    bare = re.sub(r"(?m)%.*$", "", bare)
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0, "a brace closes nothing"
    assert depth == 0, "a brace is not closed"
    assert bare.count("$") % 2 == 0
    opened: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{(\w+)\}", bare):
        if verb == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    bare = re.sub(
        r"\\begin\{tabular\}\[[tb]\]\{@\{\}r@\{\}\}(.*?)\\end\{tabular\}",
        lambda match: match[1].replace(r"\\", " "),
        bare,
        flags=re.DOTALL,
    )
    bodies = re.findall(r"\\begin\{tabularx?\}.*?@\{\}\}(.*?)\\end\{tabularx?\}", bare, re.DOTALL)
    bodies = [re.sub(r"\\(top|mid|bottom)rule", "", body) for body in bodies]
    return [[[cell.strip() for cell in row.split("&")] for row in body.split(r"\\") if row.strip()] for body in bodies]
