import pytest
from small import config

from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem, full_update_costs


@pytest.mark.parametrize("clients_per_round", [6, 2])
def test_the_first_rounds_cost_what_they_cost_in_the_whole_run(clients_per_round: int) -> None:
    settings = config("rounds=12", "schedule=full", f"participation.clients_per_round={clients_per_round}")
    problem = build_problem(settings, load_federation(settings))
    whole = full_update_costs(problem, 12)
    assert len(whole) == 12
    for rounds in (0, 1, 5):
        assert full_update_costs(problem, rounds) == whole[:rounds]
