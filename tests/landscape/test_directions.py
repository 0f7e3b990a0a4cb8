"""Directions, filter by filter with the axes written out."""

import pytest
import torch
from support.landscape import objective_at

from grokscope import Trajectory, landscape
from grokscope.errors import GrokscopeError


def test_filters_of_a_direction_have_the_weights_norms(trajectory: Trajectory):
    """Biases do not move."""
    objective = objective_at(trajectory, 60)
    weights = objective.to_tensors(objective.point)
    directions = objective.to_tensors(landscape.random_direction(objective))
    filters = []
    for name, w in weights.items():
        d = directions[name]
        kind = name.split(".")[-1]
        if kind in ("W_E", "W_pos", "W_out"):
            filters += [(w[i], d[i]) for i in range(len(w))]
        elif kind in ("W_in", "W_U"):
            filters += [(w[:, i], d[:, i]) for i in range(w.shape[1])]
        elif kind in ("W_Q", "W_K", "W_V", "W_O"):
            filters += [(w[head], d[head]) for head in range(2)]
        else:
            assert kind.startswith("b_") and not d.any()
    assert len(filters) == 8 + 3 + 4 * 2 + 24 * 2 + 7
    for w, d in filters:
        assert float(d.norm()) == pytest.approx(float(w.norm()), rel=1e-12) and float(w.norm()) > 0


def test_directions_are_functions_of_seed_and_index(trajectory: Trajectory):
    objective = objective_at(trajectory, 60)
    directions = [landscape.random_direction(objective, *numbers) for numbers in ((0, 0), (0, 1), (1, 0))]
    assert torch.equal(landscape.random_direction(objective, 0, 1), directions[1])
    for i in range(3):
        for j in range(i):
            cosine = torch.nn.functional.cosine_similarity(directions[i], directions[j], dim=0)
            assert abs(float(cosine)) < 0.15


def test_invalid_direction_is_refused(trajectory: Trajectory):
    objective = objective_at(trajectory, 20)
    for kind, message in (
        ("gradiant", "along: 'gradiant'. Allowed: random, gradient, eigenvector"),
        (torch.zeros(len(objective.point)), "norm of a direction is 0.0"),
        (torch.ones(3), r"shape \(3,\). Allowed: a vector of the"),
    ):
        with pytest.raises(GrokscopeError, match=message):
            landscape.direction(objective, kind)
