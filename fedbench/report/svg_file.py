"""Charts as SVG files that need no page: their style is in the attributes of each element, and a legend is below."""

from collections.abc import Mapping
from xml.etree import ElementTree

from fedbench.report.palette import BAND, DASHES, GROUND, HEAT, INK, LIGHT_NUMBERS_FROM, LINES, RULE, SHADES
from fedbench.report.svg_chart import HEIGHT, WIDTH, Chart, classes
from fedbench.report.svg_heatmap import Heatmap

LEGEND_ROW = 16
"""Height of a line of the legend."""

FONT = {"font-family": "Helvetica, Arial, sans-serif", "font-size": "13"}

ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "grid": {"stroke": RULE, "stroke-width": "0.7", "fill": "none"},
    "axis": {"stroke": INK, "stroke-width": "1", "fill": "none"},
    "target": {
        "stroke": INK, "stroke-width": "1.2", "stroke-dasharray": "1 4", "stroke-linecap": "round", "fill": "none",
    },
    "line": {"stroke-width": "2", "stroke-linejoin": "round", "fill": "none"},
    "band": {"fill-opacity": str(BAND), "stroke": "none"},
    "dot": {"stroke": GROUND, "stroke-width": "0.8"},
    "letter": {
        "font-weight": "700", "font-size": "14", "paint-order": "stroke", "stroke": GROUND, "stroke-width": "3",
    },
    "shade": {"fill": HEAT, "stroke": "none"},
    "frame": {"stroke": RULE, "fill": "none"},
    **{f"d{number}": {"stroke-dasharray": " ".join(map(str, lengths))} for number, lengths in enumerate(DASHES)},
    **{f"s{number}": {"fill-opacity": str(opacity)} for number, opacity in enumerate(SHADES, 1)},
    **{
        f"n{number}": {"font-size": "11", "fill": GROUND if number >= LIGHT_NUMBERS_FROM else INK}
        for number in range(1, len(SHADES) + 1)
    },
}  # fmt: skip
"""What each class of an element stands for on a white ground; the colour of a line has further rules."""


def chart_svg(chart: Chart) -> str:
    """A chart with its legend as a whole SVG file."""
    root = ElementTree.fromstring(chart.to_svg())
    legend = chart.legend
    for row, (style, text) in enumerate(legend):
        top = HEIGHT + LEGEND_ROW * row + 6
        if style is not None:
            path = {"class": f"line {classes(style)}", "d": f"M8 {top}H40"}
            ElementTree.SubElement(root, "path", path)
        ElementTree.SubElement(root, "text", {"x": "47", "y": str(top + 4), "font-size": "12"}).text = text
    return _whole(root, WIDTH, HEIGHT + LEGEND_ROW * len(legend))


def heatmap_svg(heatmap: Heatmap) -> str:
    """A picture of what clients hold as a whole SVG file."""
    root = ElementTree.fromstring(heatmap.to_svg())
    _, _, width, height = map(int, root.attrib["viewBox"].split())
    return _whole(root, width, height)


def _whole(root: ElementTree.Element, width: int, height: int) -> str:
    """The file, of so many points, with a white ground and without classes."""
    for element in root.iter():
        _style(element)
    for name in ("style", "class"):
        root.attrib.pop(name, None)
    size = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    root.attrib.update({"xmlns": "http://www.w3.org/2000/svg", **size, **FONT, "fill": INK})
    ground = ElementTree.Element("rect", {"width": str(width), "height": str(height), "fill": GROUND})
    described = sum(1 for child in root if child.tag in ("title", "desc"))
    root.insert(described, ground)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _style(element: ElementTree.Element) -> None:
    """Put attributes in the place of an element's classes."""
    names = element.attrib.pop("class", "").split()
    for name in names:
        is_dashed = name[0] == "d" and name[1:].isdigit()
        if not is_dashed or ("line" in names and name != "d0"):
            element.attrib.update(ATTRIBUTES.get(name, {}))
    colours = [LINES[int(name[1:])] for name in names if name[0] == "c" and name[1:].isdigit()]
    if colours:
        element.set("stroke" if "line" in names else "fill", colours[0])
