"""Directions in the space of the weights, of a length that means the same for every network."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import curvature, rng
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective

Direction = str | Tensor
"""One of KINDS, or a flat vector over the trained parameters, as `Objective.flat` makes it."""
KINDS = ("random", "gradient", "eigenvector")
FILTERS: Mapping[str, tuple[int, ...]] = {
    "W_E": (1,),
    "W_pos": (1,),
    "W_Q": (1, 2),
    "W_K": (1, 2),
    "W_V": (1, 2),
    "W_O": (1, 2),
    "W_in": (0,),
    "W_out": (1,),
    "W_U": (0,),
}
"""The axes that one filter of a matrix spans: a token's row of W_E, a position's row of W_pos, a head's whole W_Q,
W_K, W_V and W_O (the basis inside a head is arbitrary: what is multiplied into the queries and divided out of the
keys changes nothing, so a single column is no unit), a neuron's column of W_in and row of W_out, an answer's column
of W_U. What is not here, biases and LayerNorm's scales and shifts, has no filter."""


def filter_norms(name: str, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the Euclidean norm of each filter of a parameter, with axes of length 1 where the filter spans one."""
    return torch.linalg.vector_norm(tensor, dim=FILTERS[name.split(".")[-1]], keepdim=True)


def random_direction(objective: Objective, seed: int = 0, index: int = 0) -> Float[Tensor, " n"]:
    """Return a filter-normalised Gaussian direction d_i ← d_i ‖w_i‖/‖d_i‖ over all filters i (Li et al. 2018, eq. 1).

    FILTERS says what a filter is. As in the paper, biases and normalization do not move: d is zero there, and where
    a filter is zero. So ‖d‖ is the norm of the weights that have filters, and scaling a neuron's incoming weights up
    and its outgoing ones down, which a ReLU does not notice, changes no loss along d. The random numbers are a
    function of (seed, index, parameter), the same at every checkpoint.
    """
    parts = {}
    for name, weight in objective.unflat(objective.point).items():
        parts[name] = torch.zeros_like(weight)
        if name.split(".")[-1] in FILTERS:
            generator = rng.generator("direction", seed, f"{index}/{name}")
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
            parts[name] = drawn * (filter_norms(name, weight) / filter_norms(name, drawn))
    return objective.flat(parts)


def direction(objective: Objective, kind: Direction, seed: int = 0, index: int = 0) -> Float[Tensor, " n"]:
    """Return the direction of a kind at a checkpoint, scaled to the length of its weights: 1 is a step as long as w.

    "random" is `random_direction`; "gradient" that of steepest ascent; "eigenvector" the Hessian's top one; a flat
    vector is taken as it is. The last three are scaled as a whole, for normalising their filters would turn them.
    Raise GrokscopeError for another kind, a vector of another length, and a direction of no length.
    """
    if isinstance(kind, str) and kind == "random":
        return random_direction(objective, seed, index)
    if isinstance(kind, Tensor):
        if kind.shape != objective.point.shape:
            raise GrokscopeError(
                f"A direction has shape {tuple(kind.shape)}; allowed: a flat vector over the "
                f"{len(objective.point)} trained parameters, as Objective.flat makes it."
            )
        found = kind.to(objective.point)
    elif kind == "gradient":
        found = objective.value_and_gradient(objective.point)[1]
    elif kind == "eigenvector":
        found = curvature.lanczos(*objective.hessian(), seed=seed).vector.to(objective.point)
    else:
        raise GrokscopeError(f"along: {kind!r}; allowed: {', '.join(KINDS)}, or a flat vector.")
    length = torch.linalg.vector_norm(found)
    if not 0 < float(length) < torch.inf:
        raise GrokscopeError("A direction has no length, or none that is finite, so it leads nowhere.")
    return found * (torch.linalg.vector_norm(objective.point) / length)
