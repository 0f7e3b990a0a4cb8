"""The measure `local_learning_coefficient`: chains on the train loss of a checkpoint, at temperature 1/log n."""

import math

import numpy as np
import pytest
import torch

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.landscape import sgld
from grokscope.landscape.objective import objectives

OPTIONS = {"n_draws": 20, "n_burn_in": 5, "n_chains": 2, "dtype": "float64"}


def test_coefficient_is_the_mean_rise_times_n_over_log_n(tiny_run):
    trajectory = Trajectory.open(tiny_run).select([60])
    series = measures.evaluate("local_learning_coefficient", trajectory, **OPTIONS)
    ((_, objective),) = objectives(trajectory)
    n_beta = 29 / math.log(29)
    assert len(trajectory.split.train) == 29
    chains = sgld.run_chains(
        objective.value_and_gradient, objective.point, n_beta=n_beta, lr=1e-4, localization=300.0, n_draws=20,
        n_burn_in=5, n_chains=2,
    )  # fmt: skip
    rise = n_beta * (chains.values.mean(1) - objective.value(objective.point))
    assert series["local_learning_coefficient_by_chain"][0] == pytest.approx(rise, rel=1e-12)
    assert series["local_learning_coefficient"][0] == pytest.approx(rise.mean(), rel=1e-12)
    assert series["train_loss"] == pytest.approx(measures.evaluate("loss", trajectory)["train_loss"], rel=1e-5)
    assert series["llc_at_equilibrium"].dtype == bool


def test_fewer_than_three_train_equations_are_rejected(tiny_run):
    trajectory = Trajectory.open(tiny_run)
    split = (torch.arange(2), torch.arange(2, 49))
    few = Trajectory.from_state_dicts(trajectory.config, {0: trajectory.last.parameters}, split)
    with pytest.raises(GrokscopeError, match="2 train equations. Allowed: from 3, .* 1/log n"):
        measures.evaluate("local_learning_coefficient", few)


def test_measure_is_evaluated_only_when_named():
    assert "local_learning_coefficient" in measures.names()
    assert set(measures.names()) - set(measures.usual()) == {"local_learning_coefficient"}
    assert np.array_equal(measures.usual(), sorted(measures.usual()))
