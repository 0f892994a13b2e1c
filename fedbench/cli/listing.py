"""What `fedbench list` shows, read off the components themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbench.components.catalogue import BROUGHT_MODELS, BUILTIN, component_class
from fedbench.config.device_table import KINDS, shipped_table
from fedbench.config.merge import PRESETS, preset_names
from fedbench.suites.file import suite_names, suite_summary


def listing(what: str) -> list[dict[str, str]]:
    """One row for each built-in part.

    Args:
        what: presets, suites, studies, devices, links, or the plural of a kind in the catalogue.
    """
    if what == "presets":
        return [{"name": name, "what it is": _first_comment(PRESETS / f"{name}.yaml")} for name in preset_names()]
    if what == "suites":
        return [{"name": name, "what it is": suite_summary(name)} for name in suite_names()]
    if what == "studies":
        from fedbench.studies.file import shipped_studies

        return [{"name": name, "what it is": _first_comment(path)} for name, path in shipped_studies().items()]
    if what in KINDS:
        return [_figures_row(name, figures) for name, figures in shipped_table()[what].items()]
    kind = "availability" if what == "availabilities" else what.removesuffix("s")
    brought = BROUGHT_MODELS if kind == "model" else ()
    return [_component_row(kind, name) for name in (*BUILTIN[kind], *brought)]


def _figures_row(name: str, figures: Mapping[str, Any]) -> dict[str, str]:
    """A device or a link for `delays.profile`, its figures and where they come from."""
    shown = {
        key: value if isinstance(value, int) else f"{value:g}" for key, value in figures.items() if key != "source"
    }
    parameters = ", ".join(f"{key}={value}" for key, value in shown.items())
    return {"name": name, "parameters": parameters, "source": str(figures["source"])}


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def _component_row(kind: str, name: str) -> dict[str, str]:
    part = component_class(kind, name)
    parameters = []
    for key, field in part.model_fields.items():
        if key == "name":
            continue
        default = "" if field.is_required() else f"={field.get_default(call_default_factory=True)}"
        parameters.append(f"{key}{default}")
    row = {"name": name, "what it is": part.summary(), "parameters": ", ".join(parameters)}
    if kind == "algorithm":
        row |= {"paper": part.paper, "sends": part.sends, "keeps": part.keeps, "cannot be with": part.refuses}
    return row
