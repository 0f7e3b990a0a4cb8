"""Fourier analysis over the pairs Z_n × Z_n: the single-frequency parts of logits and neurons.

Notation as in Nanda et al. 2023: w_k = 2πk/n. i and j are the positions of the operands on the circle.
m = i ± j mod n is the position of the answer. Products of two vectors of `cyclic.fourier_basis` are an orthonormal
basis of the functions of (i, j). The functions of the answer with frequency k are spanned by

    u_k = √2/n cos(w_k m),   v_k = √2/n sin(w_k m).

With the cosines c and the sines s of frequency k in `cyclic.fourier_basis`:

- sum: u_k = (c⊗c − s⊗s)/√2, v_k = (s⊗c + c⊗s)/√2;
- difference: u_k = (c⊗c + s⊗s)/√2, v_k = (s⊗c − c⊗s)/√2;
- the frequency n/2 of an even n has only u = 1/n cos(πm).

The constant and all u_k, v_k span the functions of the answer alone. The projection on that span is the mean over the
n pairs of each answer. Projected logits therefore need n rows instead of n², and cost n times less.
"""

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.fourier import cyclic

_ROUNDING = 1e3
"""The tolerance for rounding errors, in units of the machine precision."""


def answer_means(logits: Float[Tensor, "n n classes"], answers: Int[Tensor, "n n"]) -> Float[Tensor, "n classes"]:
    """Return the mean logit of each class over the n pairs of each answer: the part that depends on the answer alone.

    Args:
        logits: The logits of the pair (i, j), by class.
        answers: The position m of the answer of each pair. Each answer has n pairs.

    Returns:
        The means, by answer m and class.
    """
    n, _, n_classes = logits.shape
    sums = logits.new_zeros(n, n_classes).index_add_(0, answers.flatten(), logits.flatten(0, 1))
    return sums / n


def answer_waves(
    means: Float[Tensor, "n classes"], frequencies: Int[Tensor, " selected"]
) -> Float[Tensor, "selected n classes"]:
    """Return the projections of the logits on the span of u_k and v_k, as functions of the answer.

    Over all frequencies the projections sum to the means minus the mean of each class.

    Args:
        means: The `answer_means` of the logits.
        frequencies: The selected frequencies k, each from 1 to n // 2.
    """
    n = len(means)
    components = cyclic.fourier_components(means)
    basis = cyclic.fourier_basis(n).to(means)
    if n % 2 == 0:
        # A zero row replaces the missing sine of the last frequency.
        components, basis = (torch.nn.functional.pad(rows, (0, 0, 0, 1)) for rows in (components, basis))
    rows = torch.stack([2 * frequencies - 1, 2 * frequencies], 1)
    return einsum(basis[rows], components[rows], "k wave n, k wave classes -> k n classes")


def cosine_coefficients(means: Float[Tensor, "n n"]) -> Float[Tensor, " n_frequencies"]:
    """Return the α_k of the least-squares fit Σ_k α_k cos(w_k(m − l)) to the logits, for all frequencies.

    The cosines of different k are orthogonal over all (i, j, l). Each α_k is therefore a projection, independent of
    the other frequencies in the fit.

    Args:
        means: The `answer_means` of the logits, with each class at its position l on the circle.

    References:
        Nanda et al. 2023, section 4.2.
    """
    n = len(means)
    position = torch.arange(n, device=means.device)
    # Entry d is the mean over all m of the logit of the class m − d.
    by_distance = means[position[:, None], (position[:, None] - position) % n].mean(0)
    return (_cosines(n).to(means) @ by_distance) / (n * _mean_squares(n).to(means))


def cosine_variances(
    coefficients: Float[Tensor, "*steps n_frequencies"], n: int
) -> Float[Tensor, "*steps n_frequencies"]:
    """Return the mean square of α_k cos(w_k(m − l)) over all (i, j, l): α_k²/2, or α_k² for the frequency n/2."""
    return coefficients.square() * _mean_squares(n).to(coefficients)


def logit_variance(logits: Float[Tensor, "n n classes"]) -> Float[Tensor, ""]:
    """Return the mean square of the logits after subtraction of each pair's mean over the classes.

    The softmax is invariant under that mean, so it does not count.
    """
    return (logits.square().mean(-1) - logits.mean(-1).square()).mean()


def pair_blocks(values: Float[Tensor, "n n d"]) -> Float[Tensor, "n_frequencies 3 3 d"]:
    """Return the components of d functions of (i, j) along {1, cos, sin} ⊗ {1, cos, sin}, for each frequency.

    Entry [k − 1, r, c] is the component along vector r of frequency k in i times vector c in j. Entry [k − 1, 0, 0],
    the constant, is the same for all k. The missing sine of the frequency n/2 has zero components.

    Cost: 2n³d operations, dominated by the product that all blocks share.
    """
    n = len(values)
    basis = cyclic.fourier_basis(n).to(values)
    first = einsum(basis, values, "row i, i j d -> row j d")
    constant = einsum(basis, first[0], "row j, j d -> row d")
    if n % 2 == 0:
        basis, first, constant = (
            torch.nn.functional.pad(rows, (0, 0) * (rows.ndim - 1) + (0, 1)) for rows in (basis, first, constant)
        )
    n_frequencies = n // 2
    blocks = values.new_empty(n_frequencies, 3, 3, values.shape[-1])
    waves = basis[1:].unflatten(0, (n_frequencies, 2))
    blocks[:, 0, 0] = constant[0]
    blocks[:, 0, 1:] = constant[1:].unflatten(0, (n_frequencies, 2))
    vectors = torch.cat([basis[:1].expand(n_frequencies, 1, -1), waves], 1)
    for k in range(n_frequencies):
        blocks[k, 1:] = einsum(first[2 * k + 1 : 2 * k + 3], vectors[k], "wave j d, vector j -> wave vector d")
    return blocks


def block_shares(
    blocks: Float[Tensor, "n_frequencies 3 3 d"], values: Float[Tensor, "n n d"]
) -> Float[Tensor, "n_frequencies d"]:
    """Return the share of each frequency's 3 × 3 block in the energy of each function about its mean.

    - A share of 1 means a polynomial in the cosine and sine of one frequency, of degree at most 1 in each operand.
    - A constant function, such as a dead neuron, has share 0 in every frequency.
    - The shares of all frequencies sum to at most 1: the blocks share only the constant, which does not count.

    Args:
        blocks: The `pair_blocks` of the functions.
        values: The functions themselves.

    References:
        Nanda et al. 2023, section 4.2.
    """
    energy = reduce(blocks.square(), "k r c d -> k d", "sum") - blocks[:, 0, 0].square()
    about_mean = reduce((values - values.mean((0, 1))).square(), "i j d -> d", "sum")
    rounding = _ROUNDING * torch.finfo(values.dtype).eps ** 2 * reduce(values.square(), "i j d -> d", "sum")
    return torch.where(about_mean > rounding, energy / about_mean.clamp_min(torch.finfo(values.dtype).tiny), 0.0)


def largest_share(shares: Float[Tensor, "n_frequencies d"]) -> tuple[Float[Tensor, " d"], Int[Tensor, " d"]]:
    """Return the largest share of each function, and its frequency.

    If several shares are equal up to rounding, the lowest frequency wins. A neuron that fires on a single pair has
    the same share in every frequency.
    """
    largest = shares.amax(0)
    is_largest = shares >= largest * (1 - _ROUNDING * torch.finfo(shares.dtype).eps)
    return largest, is_largest.double().argmax(0) + 1


def block_functions(
    blocks: Float[Tensor, "n_frequencies 3 3 d"], frequencies: Int[Tensor, " d"], n: int
) -> Float[Tensor, "n n d"]:
    """Return the projection of each function on the 3 × 3 block of its own frequency.

    Args:
        blocks: The `pair_blocks` of the d functions.
        frequencies: The frequency of each function.
        n: The number of positions on the circle.
    """
    projections = blocks.new_empty(n, n, len(frequencies))
    # The zero row below the basis is the missing sine of the frequency n/2.
    basis = torch.nn.functional.pad(cyclic.fourier_basis(n).to(blocks), (0, 0, 0, 1))
    for k in frequencies.unique().tolist():
        columns = (frequencies == k).nonzero()[:, 0]
        vectors = basis[[0, 2 * k - 1, 2 * k]]
        block = blocks[k - 1][..., columns]
        projections[..., columns] = einsum(
            vectors, einsum(vectors, block, "c j, r c d -> r j d"), "r i, r j d -> i j d"
        )
    return projections


def _cosines(n: int) -> Float[Tensor, "n_frequencies n"]:
    """Return cos(w_k t) for each frequency k and t = 0 … n − 1."""
    basis = cyclic.fourier_basis(n)[2 * cyclic.frequencies(n) - 1]
    return basis / basis[:, :1]


def _mean_squares(n: int) -> Float[Tensor, " n_frequencies"]:
    """Return the mean square of cos(w_k t) over t: 1/2, or 1 for the frequency n/2."""
    return torch.where(2 * cyclic.frequencies(n) == n, 1.0, 0.5).double()
