"""What makes the runs of these tests quick."""

import pytest


@pytest.fixture(autouse=True)
def quick_runs(flops_counted_once: None, no_figures: None) -> None:
    """Nothing here looks at figures."""
