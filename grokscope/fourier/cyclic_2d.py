"""Waves over the pairs of Z_n × Z_n: the parts of logits and neurons that have one frequency.

Notation as in Nanda et al. 2023: w_k = 2πk/n; i and j are the operands' positions on the circle and m = i ± j mod n
is the answer's. The orthonormal basis of functions of (i, j) is that of Z_n (`fourier.fourier_basis`) times itself.
Of frequency k in the answer it has

    u_k = √2/n cos(w_k m),   v_k = √2/n sin(w_k m),

for a sum (c⊗c − s⊗s)/√2 and (s⊗c + c⊗s)/√2 with the basis' cosines c and sines s, for a difference
(c⊗c + s⊗s)/√2 and (s⊗c − c⊗s)/√2; for even n the frequency n/2 has u alone, 1/n cos(πm). Functions of the answer
alone are spanned by the constant and all u_k and v_k, and the projection on that span is the mean over the n pairs
of each answer. So what is kept of logits lives on n answers, not on n² pairs, and costs n times less.
"""

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.fourier import cyclic

_ROUNDING = 1e3
"""How many roundings of its largest square a sum of squares may be of, and still count as zero."""


def answer_means(logits: Float[Tensor, "n n classes"], answers: Int[Tensor, "n n"]) -> Float[Tensor, "n classes"]:
    """Return each class's mean logit over the n pairs of each answer: what of the logits the answer alone decides."""
    n, _, n_classes = logits.shape
    sums = logits.new_zeros(n, n_classes).index_add_(0, answers.flatten(), logits.flatten(0, 1))
    return sums / n


def answer_waves(
    means: Float[Tensor, "n classes"], frequencies: Int[Tensor, " chosen"]
) -> Float[Tensor, "chosen n classes"]:
    """Return the projections of logits on u_k and v_k together, as a function of the answer, for some frequencies.

    `means` are the logits' `answer_means`. Over all frequencies they sum to the means less each class's mean.
    """
    n = len(means)
    components = cyclic.fourier_components(means)
    basis = cyclic.fourier_basis(n).to(means)
    if n % 2 == 0:  # The last frequency's sine, which is zero.
        components, basis = (torch.nn.functional.pad(one, (0, 0, 0, 1)) for one in (components, basis))
    rows = torch.stack([2 * frequencies - 1, 2 * frequencies], 1)
    return einsum(basis[rows], components[rows], "k wave n, k wave classes -> k n classes")


def cosine_coefficients(means: Float[Tensor, "n n"]) -> Float[Tensor, " n_frequencies"]:
    """Return the α_k for which Σ_k α_k cos(w_k(m − l)) comes nearest to the logits, for all frequencies.

    `means` are the logits' `answer_means` with the classes at their positions l on the circle. The cosines of
    different k are orthogonal over all (i, j, l), so each α_k is a projection and does not depend on which other
    frequencies are fitted: the least squares solution (Nanda et al. 2023, section 4.2).
    """
    n = len(means)
    position = torch.arange(n, device=means.device)
    # The mean over all m of the logit of the class at distance d before m.
    by_distance = means[position[:, None], (position[:, None] - position) % n].mean(0)
    return (_cosines(n).to(means) @ by_distance) / (n * _mean_squares(n).to(means))


def cosine_variances(
    coefficients: Float[Tensor, "*steps n_frequencies"], n: int
) -> Float[Tensor, "*steps n_frequencies"]:
    """Return the mean square of α_k cos(w_k(m − l)) over all (i, j, l): α_k²/2, and α² for frequency n/2."""
    return coefficients.square() * _mean_squares(n).to(coefficients)


def logit_variance(logits: Float[Tensor, "n n classes"]) -> Float[Tensor, ""]:
    """Return the mean square of the logits, each pair's mean over the classes taken off.

    What all classes of a pair have in common is no part of it, because a softmax does not see it.
    """
    return (logits.square().mean(-1) - logits.mean(-1).square()).mean()


def pair_blocks(values: Float[Tensor, "n n d"]) -> Float[Tensor, "n_frequencies 3 3 d"]:
    """Return the components of d functions of (i, j) in {1, cos, sin} ⊗ {1, cos, sin}, for each frequency.

    Entry [k − 1, r, c] is the component along the r-th of frequency k's vectors in i times the c-th in j; [0, 0],
    the constant's, is the same for all k. The missing sine of an even n's last frequency has components zero. Costs
    2n³d operations: the one product that all blocks share, and little more.
    """
    n = len(values)
    basis = cyclic.fourier_basis(n).to(values)
    first = einsum(basis, values, "row i, i j d -> row j d")
    constant = einsum(basis, first[0], "row j, j d -> row d")
    if n % 2 == 0:
        basis, first, constant = (
            torch.nn.functional.pad(one, (0, 0) * (one.ndim - 1) + (0, 1)) for one in (basis, first, constant)
        )
    n_frequencies = n // 2
    blocks = values.new_empty(n_frequencies, 3, 3, values.shape[-1])
    waves = basis[1:].unflatten(0, (n_frequencies, 2))
    blocks[:, 0, 0] = constant[0]
    blocks[:, 0, 1:] = constant[1:].unflatten(0, (n_frequencies, 2))
    three = torch.cat([basis[:1].expand(n_frequencies, 1, -1), waves], 1)
    for k in range(n_frequencies):
        blocks[k, 1:] = einsum(first[2 * k + 1 : 2 * k + 3], three[k], "wave j d, three j -> wave three d")
    return blocks


def block_shares(
    blocks: Float[Tensor, "n_frequencies 3 3 d"], values: Float[Tensor, "n n d"]
) -> Float[Tensor, "n_frequencies d"]:
    """Return the share of each function's energy about its mean that lies in each frequency's 3 × 3 block.

    Nanda et al. 2023, section 4.2. A function with the share 1 is a polynomial of degree 2, at most 1 in each
    operand, of the cosine and sine of one frequency. A constant function, such as a neuron that never fires, has
    share 0 everywhere. The shares of different frequencies sum to at most 1: their blocks have the constant alone
    in common, which does not count.
    """
    energy = reduce(blocks.square(), "k r c d -> k d", "sum") - blocks[:, 0, 0].square()
    about_mean = reduce((values - values.mean((0, 1))).square(), "i j d -> d", "sum")
    rounding = _ROUNDING * torch.finfo(values.dtype).eps ** 2 * reduce(values.square(), "i j d -> d", "sum")
    return torch.where(about_mean > rounding, energy / about_mean.clamp_min(torch.finfo(values.dtype).tiny), 0.0)


def largest_share(shares: Float[Tensor, "n_frequencies d"]) -> tuple[Float[Tensor, " d"], Int[Tensor, " d"]]:
    """Return each function's largest share and its frequency; of shares equal to rounding the lowest frequency's.

    A neuron that fires on a single pair has all frequencies alike.
    """
    largest = shares.amax(0)
    is_largest = shares >= largest * (1 - _ROUNDING * torch.finfo(shares.dtype).eps)
    return largest, is_largest.double().argmax(0) + 1


def block_functions(
    blocks: Float[Tensor, "n_frequencies 3 3 d"], frequencies: Int[Tensor, " d"], n: int
) -> Float[Tensor, "n n d"]:
    """Return each function's projection on the 3 × 3 block of one frequency, its own: a polynomial of degree 2."""
    found = blocks.new_empty(n, n, len(frequencies))
    basis = torch.nn.functional.pad(cyclic.fourier_basis(n).to(blocks), (0, 0, 0, 1))
    for k in frequencies.unique().tolist():
        of_it = (frequencies == k).nonzero()[:, 0]
        # For frequency n/2 the third vector is the zero that was put below the basis.
        three = basis[[0, 2 * k - 1, 2 * k]]
        block = blocks[k - 1][..., of_it]
        found[..., of_it] = einsum(three, einsum(three, block, "c j, r c d -> r j d"), "r i, r j d -> i j d")
    return found


def _cosines(n: int) -> Float[Tensor, "n_frequencies n"]:
    basis = cyclic.fourier_basis(n)[2 * cyclic.frequencies(n) - 1]
    return basis / basis[:, :1]


def _mean_squares(n: int) -> Float[Tensor, " n_frequencies"]:
    """Return the mean square of cos(w_k t) over t: one half, and one for the frequency n/2."""
    return torch.where(2 * cyclic.frequencies(n) == n, 1.0, 0.5).double()
