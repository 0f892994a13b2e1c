"""`fedbench list`."""

import json
import re
from collections.abc import Callable

import pytest
from command_line import Finished

from fedbench.components.catalogue import BROUGHT_MODELS, BUILTIN
from fedbench.config.merge import preset_names

NAMES = (
    {"presets": preset_names()}
    | {
        f"{kind}s": list(BUILTIN[kind])
        for kind in ("algorithm", "schedule", "model", "dataset", "partition", "sampler", "attack", "optimizer")
    }
    | {"studies": ["algorithms", "fedpart_pareto", "fedpart_schedules", "ormo_momentum"]}
    | {"models": [*BUILTIN["model"], *BROUGHT_MODELS]}
)


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_listed_with_what_it_is(kind: str, call: Callable[..., Finished]) -> None:
    finished = call("list", kind)
    assert (finished.status, finished.stderr) == (0, "")
    starts = {re.split(": |  ", line)[0] for line in finished.stdout.splitlines()}
    assert set(NAMES[kind]) <= starts
    rows = json.loads(call("list", kind, "--json").stdout)
    assert [row["name"] for row in rows] == NAMES[kind]
    assert all(row["what it is"] for row in rows)
