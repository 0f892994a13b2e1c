"""Mean and quartiles over the clients that have a figure, against NumPy's own."""

import numpy as np
import pytest

from fedbench.measures.spread import client_spread


def test_mean_and_quartiles_are_numpys_over_the_clients_that_have_the_figure() -> None:
    draws = np.random.default_rng(0)
    values = draws.normal(size=(7, 5, 3))
    values[draws.random(values.shape) < 0.4] = np.nan
    values[:, 0, 0] = np.nan
    values[1:, 0, 1] = np.nan
    spread = client_spread(values)
    for place in np.ndindex(5, 3):
        there = values[(slice(None), *place)]
        there = there[np.isfinite(there)]
        assert spread.clients[place] == len(there)
        if len(there):
            assert spread.mean[place] == pytest.approx(there.mean())
            quartiles = [spread.q25[place], spread.median[place], spread.q75[place]]
            assert quartiles == pytest.approx(np.quantile(there, [0.25, 0.5, 0.75]))
        else:
            assert np.isnan([spread.mean[place], spread.q25[place], spread.median[place], spread.q75[place]]).all()
