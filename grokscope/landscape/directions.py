"""Directions in weight space whose lengths are comparable between networks."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import curvature, rng
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective

Direction = str | Tensor
"""One of KINDS, or a vector over the trained parameters from `Objective.to_vector`."""
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
"""The axes of a matrix that one filter spans.

- W_E and W_pos: the row of a token or a position.
- W_Q, W_K, W_V and W_O: the whole matrix of a head. The basis inside a head is arbitrary, because a matrix multiplied
  into the queries and divided out of the keys changes nothing. A single column is therefore not a unit.
- W_in and W_out: the column or the row of a neuron.
- W_U: the column of an answer.

Biases and the scales and shifts of LayerNorm have no filters.
"""


def filter_norms(name: str, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the Euclidean norm of each filter of a parameter; the axes that a filter spans have length 1.

    Args:
        name: The name of the parameter, such as "blocks.0.mlp.W_in".
        tensor: Its value.
    """
    return torch.linalg.vector_norm(tensor, dim=FILTERS[name.split(".")[-1]], keepdim=True)


def random_direction(objective: Objective, seed: int = 0, index: int = 0) -> Float[Tensor, " n"]:
    """Return a filter-normalised Gaussian direction d_i ‖w_i‖/‖d_i‖ over all filters i.

    - The direction is zero for parameters without filters, as in the paper, and for filters of zeros. Its norm is
      therefore the norm of the weights that have filters.
    - Invariance: scaling a ReLU neuron's incoming weights up and its outgoing weights down changes no loss along the
      direction.
    - The Gaussian numbers are a function of (seed, index, parameter), so they are the same at every checkpoint.

    Args:
        objective: The checkpoint.
        seed: The seed of the random numbers.
        index: The number of the direction; different numbers give independent directions.

    Returns:
        A vector over the trained parameters.

    References:
        Li et al. 2018, section 4. FILTERS defines the filters of a transformer.
    """
    parts = {}
    for name, weight in objective.to_tensors(objective.point).items():
        parts[name] = torch.zeros_like(weight)
        if name.split(".")[-1] in FILTERS:
            generator = rng.generator("direction", seed, f"{index}/{name}")
            gaussian = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
            parts[name] = gaussian * (filter_norms(name, weight) / filter_norms(name, gaussian))
    return objective.to_vector(parts)


def direction(objective: Objective, kind: Direction, seed: int = 0, index: int = 0) -> Float[Tensor, " n"]:
    """Return a direction of the given kind, scaled so that a unit step has the length of the weights.

    Args:
        objective: The checkpoint.
        kind: "random" is `random_direction`, "gradient" the gradient of the loss, and "eigenvector" the Hessian's top
            eigenvector. A vector over the trained parameters is a direction too. All but "random" are scaled as a
            whole, because normalising their filters would rotate them.
        seed: The seed of "random", and of the start of the eigenvector's iteration.
        index: The number of the random direction.

    Raises:
        GrokscopeError: The kind is not known, the vector has another length than the trained parameters, or the norm
            of the direction is zero or not finite.
    """
    if isinstance(kind, str) and kind == "random":
        return random_direction(objective, seed, index)
    if isinstance(kind, Tensor):
        if kind.shape != objective.point.shape:
            raise GrokscopeError(
                f"along: a direction has shape {tuple(kind.shape)}. Allowed: a vector of the "
                f"{len(objective.point)} trained parameters, as Objective.to_vector returns."
            )
        unscaled = kind.to(objective.point)
    elif kind == "gradient":
        unscaled = objective.value_and_gradient(objective.point)[1]
    elif kind == "eigenvector":
        unscaled = curvature.lanczos(*objective.hessian(), seed=seed).vector.to(objective.point)
    else:
        raise GrokscopeError(f"along: {kind!r}. Allowed: {', '.join(KINDS)}, or a vector of the trained parameters.")
    length = torch.linalg.vector_norm(unscaled)
    if not 0 < float(length) < torch.inf:
        raise GrokscopeError(f"along: the norm of a direction is {float(length)}. Allowed: a finite norm above 0.")
    return unscaled * (torch.linalg.vector_norm(objective.point) / length)
