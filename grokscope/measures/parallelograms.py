"""Representation quality: the share of the parallelograms implied by the operation that W_E contains."""

import math

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.measures._chunks import evaluate_in_chunks
from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.series import Series
from grokscope.tasks.circle import on_circle
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_CHECKPOINTS_PER_CHUNK = 8


_VARIABLES = with_companions(
    {
        "rqi": Variable("representation quality index"),
        "whole_number_rqi": Variable("representation quality index of whole-number sums"),
        "percentile_distance": Variable("distance that 1% of the parallelograms stay below"),
        "n_parallelograms": Variable("number of possible parallelograms"),
        "n_whole_number_parallelograms": Variable("number of possible parallelograms of whole-number sums"),
    },
    shuffled=("rqi", "whole_number_rqi", "percentile_distance"),
    initialization=("rqi", "whole_number_rqi", "percentile_distance"),
)


@measure(version=2, variables=_VARIABLES)
def parallelograms(trajectory: Trajectory, *, threshold: float = 0.01, n_shuffles: int = 8, seed: int = 0) -> Series:
    """Compute the representation quality index of W_E, RQI = mean[‖E_i + E_n − E_j − E_m‖²/d < threshold].

    A parallelogram is a pair of unordered pairs (i, n), (j, m) of positions on the task's circle whose sums modulo
    its order are equal. i = n is included. The rows of W_E on the circle are first centred and divided by one number,
    so that their mean square is 1. One number for all columns keeps the index invariant to rotations.

    Args:
        trajectory: The checkpoints to measure.
        threshold: The mean square difference below which a parallelogram counts, above 0. The default 0.01 is the
            paper's.
        n_shuffles: The number of random orders of the control, from 2. The standard error of the control falls as
            1/√n_shuffles.
        seed: The seed of the random orders. All steps share them.

    Returns:
        Series with arrays over the steps.

        - `rqi` (steps), from 0 to 1: 1 for tokens that coincide, about 2/3 for equidistant tokens on a line, in the
          circle's order. Tokens that differ cannot reach 1, because no lattice of vectors wraps around. A circle of
          one frequency has a small index: E_i + E_n points to the middle of i and n, but is longer the nearer they
          are. So a network that computes with circles has a small index throughout.
        - `whole_number_rqi` (steps), from 0 to 1: the same over the parallelograms whose sums are equal as whole
          numbers, as the paper defines it. It is 1 for a line. It depends on the first position of the circle. It is
          0 if the circle has two positions, because then there are no such parallelograms.
        - `percentile_distance` (steps): the ‖E_i + E_n − E_j − E_m‖²/d that 1% of the parallelograms stay below. It
          is informative even if no parallelogram reaches the threshold. The mean would not be: it is the same for all
          embeddings.

        Constants: `n_parallelograms` and `n_whole_number_parallelograms`, the numbers of possible parallelograms.

    Raises:
        GrokscopeError: The task has no circle, or an option is out of range.

    References:
        - Liu et al. 2022, "Effective theory", section 3.1.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, rescaled ReLU neurons, a shift of all
          logits.
        - Scale, position and orientation of the embedding.

    Controls:
        - `…_shuffled`: the tokens in random orders. The mean over the orders, with its standard error
          `…_shuffled_stderr`.
        - `…_initialization`: the untrained model.

    Cost:
        - About n³ operations per checkpoint and order, because distances come from inner products.
    """
    check_ranges(("threshold", threshold, threshold > 0, "above 0"))
    tokens = on_circle(trajectory.task).tokens
    n = len(tokens)
    orders = controls.random_orders(n, n_shuffles, seed)
    is_whole_number = has_equal_whole_number_sums(n)

    def quality(chunk: Trajectory) -> dict[str, Tensor]:
        gram = _standardised_gram(chunk.matrix("embedding")[:, tokens].double())
        samples = [_quality(gram[:, order][:, :, order], threshold, is_whole_number) for order in orders]
        return _quality(gram, threshold, is_whole_number) | controls.shuffled_control(samples)

    arrays = evaluate_in_chunks(trajectory, _CHECKPOINTS_PER_CHUNK, quality)
    untrained_embedding = trajectory.model.matrix("embedding").read(trajectory.untrained)
    untrained_gram = _standardised_gram(untrained_embedding[None, tokens].double())
    untrained = _quality(untrained_gram, threshold, is_whole_number)
    constants = controls.untrained_control({name: array[0] for name, array in untrained.items()})
    constants["n_parallelograms"] = torch.tensor(len(is_whole_number))
    constants["n_whole_number_parallelograms"] = is_whole_number.sum()
    return Series(
        "parallelograms",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def _standardised_gram(values: Float[Tensor, "steps n d"]) -> Float[Tensor, "steps n n"]:
    """Return the inner products of the standardised rows over d; their trace is n."""
    centred = values - values.mean(-2, keepdim=True)
    gram = einsum(centred, centred, "step i d, step j d -> step i j")
    mean_square = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    return gram / mean_square.clamp_min(torch.finfo(gram.dtype).tiny)[:, None, None]


def _quality(
    gram: Float[Tensor, "steps n n"], threshold: float, is_whole_number: Bool[Tensor, " n_parallelograms"]
) -> dict[str, Float[Tensor, " steps"]]:
    """Return both indices and the percentile from the inner products of the rows."""
    distances = parallelogram_distances(gram)
    hundredth = math.ceil(distances.shape[-1] / 100)
    is_closed = (distances < threshold).double()
    return {
        "rqi": is_closed.mean(-1),
        "whole_number_rqi": is_closed[:, is_whole_number].sum(-1) / is_whole_number.sum().clamp_min(1),
        "percentile_distance": distances.kthvalue(hundredth).values,
    }


def parallelogram_distances(gram: Float[Tensor, "steps n n"]) -> Float[Tensor, "steps n_parallelograms"]:
    """Return ‖E_i + E_j − E_k − E_l‖² of every parallelogram i + j = k + l from the inner products of the rows."""
    n, distances = gram.shape[-1], []
    for total in range(n):
        i, j = _pairs(n, total)
        # The inner products of E_i + E_j over all pairs with this sum.
        rows = gram[:, i] + gram[:, j]
        products = rows[..., i] + rows[..., j]
        squares = products.diagonal(dim1=-2, dim2=-1)
        first, second = torch.triu_indices(len(i), len(i), 1)
        distances.append(squares[:, first] + squares[:, second] - 2 * products[:, first, second])
    return torch.cat(distances, -1)


def has_equal_whole_number_sums(n: int) -> Bool[Tensor, " n_parallelograms"]:
    """Return whether i + j = k + l as whole numbers, for each parallelogram of `parallelogram_distances`."""
    is_equal = []
    for total in range(n):
        i, j = _pairs(n, total)
        first, second = torch.triu_indices(len(i), len(i), 1)
        is_equal.append((i + j)[first] == (i + j)[second])
    return torch.cat(is_equal)


def _pairs(n: int, total: int) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Return the unordered pairs of positions, equal ones included, whose sum modulo n is `total`."""
    i = torch.arange(n)
    j = (total - i) % n
    return i[i <= j], j[i <= j]
