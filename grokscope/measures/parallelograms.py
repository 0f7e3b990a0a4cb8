"""Representation quality: how many of the parallelograms that the operation asks for the embedding has."""

import math

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.tasks.circle import on_circle
from grokscope.trajectory import Trajectory

_LOADED_AT_ONCE = 8


def parallelograms(trajectory: Trajectory, *, threshold: float = 0.01, n_shuffles: int = 8, seed: int = 0) -> Series:
    """Measure the representation quality index of W_E, the share of parallelograms i + n = j + m that are there.

    RQI = |{(i, n), (j, m): i + n = j + m and ‖E_i + E_n − E_j − E_m‖²/d < threshold}| over the number of all such
    pairs of unordered pairs, i = n included, for positions on the task's circle of which sums are taken modulo its
    order (Liu et al. 2022, "Effective theory", section 3.1: mean square, threshold 0.01). The rows of W_E on the
    circle are standardised first: centred, and divided by one number so that they have a mean square of 1; one for
    all columns, so that turning the residual stream changes nothing. Arrays over steps:

    - `rqi`: 1 for tokens on a lattice that wraps round, 0 where no parallelogram is there. A circle of one frequency
      is no lattice: E_i + E_n points to the middle of i and n, but is the longer the nearer they are, so a network
      that computes with circles has a small RQI throughout;
    - `percentile_distance`: the ‖E_i + E_n − E_j − E_m‖²/d that one parallelogram in a hundred stays below, which
      also tells where none reaches the threshold. The mean says nothing: it is the same for all embeddings.

    Constants: `n_parallelograms`; `…_initialization`, the untrained model. Controls: `…_shuffled`, with the tokens in
    random orders (mean over `n_shuffles`, `…_shuffled_stderr` its standard error). Raise GrokscopeError for a task
    without a circle and an option out of range. Costs some n³ operations a checkpoint and order; distances come from
    inner products.
    """
    if not threshold > 0:
        raise GrokscopeError(f"threshold: {threshold}. Allowed: above 0.")
    tokens = on_circle(trajectory.task).tokens
    n = len(tokens)
    orders = controls.random_orders(n, n_shuffles, seed)
    pieces: dict[str, list[Tensor]] = {}
    for start in range(0, len(trajectory), _LOADED_AT_ONCE):
        gram = _gram(trajectory[start : start + _LOADED_AT_ONCE].parameter("embed.W_E")[:, tokens].double())
        piece = _quality(gram, threshold)
        piece |= controls.shuffled_control([_quality(gram[:, order][:, :, order], threshold) for order in orders])
        for name, array in piece.items():
            pieces.setdefault(name, []).append(array)
    untrained = _quality(_gram(trajectory.untrained["embed.W_E"][None, tokens].double()), threshold)
    constants = controls.untrained_control({name: array[0] for name, array in untrained.items()})
    constants["n_parallelograms"] = torch.tensor(sum(math.comb(len(_pairs(n, total)[0]), 2) for total in range(n)))
    return Series(
        "parallelograms",
        trajectory.steps,
        {name: torch.cat(parts).numpy() for name, parts in pieces.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def _gram(values: Float[Tensor, "steps n d"]) -> Float[Tensor, "steps n n"]:
    """Return the standardised rows' inner products over d: their trace is n."""
    centred = values - values.mean(-2, keepdim=True)
    gram = einsum(centred, centred, "step i d, step j d -> step i j")
    mean_square = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    return gram / mean_square.clamp_min(torch.finfo(gram.dtype).tiny)[:, None, None]


def _quality(gram: Float[Tensor, "steps n n"], threshold: float) -> dict[str, Float[Tensor, " steps"]]:
    distances = parallelogram_distances(gram)
    hundredth = math.ceil(distances.shape[-1] / 100)
    return {
        "rqi": (distances < threshold).double().mean(-1),
        "percentile_distance": distances.kthvalue(hundredth).values,
    }


def parallelogram_distances(gram: Float[Tensor, "steps n n"]) -> Float[Tensor, "steps n_parallelograms"]:
    """Return ‖E_i + E_j − E_k − E_l‖² of every parallelogram i + j = k + l from the rows' inner products."""
    n, found = gram.shape[-1], []
    for total in range(n):
        i, j = _pairs(n, total)
        # The inner products of the sums E_i + E_j of all pairs of positions that have one sum.
        rows = gram[:, i] + gram[:, j]
        products = rows[..., i] + rows[..., j]
        squares = products.diagonal(dim1=-2, dim2=-1)
        first, second = torch.triu_indices(len(i), len(i), 1)
        found.append(squares[:, first] + squares[:, second] - 2 * products[:, first, second])
    return torch.cat(found, -1)


def _pairs(n: int, total: int) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Return the unordered pairs of positions, also of one with itself, whose sum modulo n is `total`."""
    i = torch.arange(n)
    j = (total - i) % n
    return i[i <= j], j[i <= j]
