"""The local learning coefficient of checkpoints: chains on their own train loss, at the temperature 1/log n."""

import math

import numpy as np
import pytest
import torch

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.landscape import sgld
from grokscope.landscape.objective import objectives

OPTIONS = {"n_draws": 20, "n_burn_in": 5, "n_chains": 2, "dtype": "float64"}


def test_it_is_the_chains_rise_of_the_train_loss_times_n_over_log_n(tiny_run):
    trajectory = Trajectory.open(tiny_run).select([60])
    found = measures.evaluate("local_learning_coefficient", trajectory, **OPTIONS)
    ((_, objective),) = objectives(trajectory)
    n_beta = 29 / math.log(29)
    assert len(trajectory.split.train) == 29
    drawn = sgld.sgld(
        objective.value_and_gradient, objective.point, n_beta=n_beta, lr=1e-4, localization=300.0, n_draws=20,
        n_burn_in=5, n_chains=2,
    )  # fmt: skip
    rise = n_beta * (drawn.values.mean(1) - objective.value(objective.point))
    assert found["local_learning_coefficient_by_chain"][0] == pytest.approx(rise, rel=1e-12)
    assert found["local_learning_coefficient"][0] == pytest.approx(rise.mean(), rel=1e-12)
    assert found["train_loss"] == pytest.approx(measures.evaluate("loss", trajectory)["train_loss"], rel=1e-5)
    assert found["llc_at_equilibrium"].dtype == bool


def test_too_few_equations_have_no_temperature(tiny_run):
    trajectory = Trajectory.open(tiny_run)
    split = (torch.arange(2), torch.arange(2, 49))
    few = Trajectory.from_state_dicts(trajectory.config, {0: trajectory.last.parameters}, split)
    with pytest.raises(GrokscopeError, match="There are 2 train equations; .* needs three"):
        measures.evaluate("local_learning_coefficient", few)


def test_it_is_taken_where_it_is_named_alone():
    assert "local_learning_coefficient" in measures.names()
    assert set(measures.names()) - set(measures.usual()) == {"local_learning_coefficient"}
    assert np.array_equal(measures.usual(), sorted(measures.usual()))
