"""The real Fourier basis of Z_n for any n: components, norms, key frequencies and circularity.

The basis is orthonormal. It consists of a constant and, for each frequency k = 1 … n // 2, of the cosine and the sine
of 2πkt/n, t = 0 … n − 1. For even n the frequency n/2 has only a cosine.

References:
    Nanda et al. 2023, section 3.2.
"""

import math

import torch
from einops import einsum, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor


def frequencies(n: int) -> Int[Tensor, " n_frequencies"]:
    """Return the frequencies of Z_n, 1 … n // 2."""
    return torch.arange(1, n // 2 + 1)


def fourier_basis(n: int) -> Float[Tensor, "n n"]:
    """Return the orthonormal real Fourier basis of Z_n in float64, one vector per row.

    Row 0 is constant. Rows 2k − 1 and 2k are cos(2πkt/n) and sin(2πkt/n), scaled to norm 1.
    """
    k, t = frequencies(n)[:, None], torch.arange(n)[None, :]
    # Reduced modulo n before the division, the angle is exact to the last bit for any k and t.
    angle = (k * t % n).double() * (2 * math.pi / n)
    waves = torch.stack([angle.cos(), angle.sin()], dim=1).flatten(0, 1)[: n - 1]
    basis = torch.cat([torch.ones(1, n, dtype=torch.float64), waves])
    return basis / torch.linalg.vector_norm(basis, dim=1, keepdim=True)


def fourier_components(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
    """Return the components of d functions on Z_n along the rows of `fourier_basis`."""
    basis = fourier_basis(values.shape[-2]).to(values)
    return einsum(basis, values, "row n, ... n d -> ... row d")


def fourier_norms(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n_frequencies"]:
    """Return the norm of each frequency, √(|cosine component|² + |sine component|²) over the d columns.

    The squares sum to the squared norm of the centred values (Parseval).
    """
    power = reduce(fourier_components(values).square(), "... row d -> ... row", "sum")[..., 1:]
    if power.shape[-1] % 2:  # n is even, so the last frequency has no sine.
        power = torch.nn.functional.pad(power, (0, 1))
    return reduce(power, "... (frequency two) -> ... frequency", "sum", two=2).sqrt()


def frequency_shares(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n_frequencies"]:
    """Return the share of each frequency in the variance of the values.

    The shares sum to 1. They are all 0 for constant values.
    """
    power = fourier_norms(values).square()
    return power / power.sum(-1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)


def keep_frequencies(
    values: Float[Tensor, "*batch n d"], kept: Int[Tensor, " n_kept"]
) -> Float[Tensor, "*batch n d"]:
    """Return the projection of d functions on Z_n on the constant and the kept frequencies.

    With all frequencies the result is the values themselves, without any it is the mean of each column.

    Args:
        values: The functions, one per column.
        kept: The frequencies, each from 1 to n // 2.
    """
    n = values.shape[-2]
    rows = torch.cat([kept.new_zeros(1), 2 * kept - 1, 2 * kept[2 * kept < n]])
    basis = fourier_basis(n).to(values)[rows]
    return einsum(basis, basis, values, "row m, row n, ... n d -> ... m d")


def component_norms(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n_waves"]:
    """Return the norm of each basis vector's component over the d columns, with cosines and sines apart.

    The constant is excluded, so there are n − 1 norms. Nanda et al. 2023 compute the Gini coefficient of these norms.
    """
    return torch.linalg.vector_norm(fourier_components(values)[..., 1:, :], dim=-1)


def gini(values: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return the Gini coefficient, the inequality of non-negative values.

    G = 1 − 2 Σ_k c_k/‖c‖₁ · (n − k + ½)/n over the values c_1 ≤ … ≤ c_n.

    - All values equal, or all zero: 0.
    - A single non-zero value: 1 − 1/n.
    - Invariant under a common factor.

    References:
        Hurley and Rickard 2009.
    """
    ascending, n = values.sort(-1).values, values.shape[-1]
    weights = (n - torch.arange(n, dtype=values.dtype, device=values.device) - 0.5) / n
    total = ascending.sum(-1)
    coefficient = 1 - 2 * (ascending * weights).sum(-1) / total.clamp_min(torch.finfo(values.dtype).tiny)
    return torch.where(total > 0, coefficient, 0.0)


def inverse_participation_ratio(shares: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return the inverse participation ratio Σ_k s_k² of shares that sum to 1.

    It is 1 for a single non-zero share and 1/n for n equal shares. Its inverse is the effective number of shares.

    References:
        Doshi et al. 2023, "To grok or not to grok": Σ_k (|f_k|/‖f‖)^{2r} with r = 2, for the share s_k of the power
        of a spectrum in frequency k.
    """
    return shares.square().sum(-1)


def key_frequencies(norms: Float[Tensor, "*batch n_frequencies"]) -> Bool[Tensor, "*batch n_frequencies"]:
    """Return a mask of the key frequencies: those whose norm exceeds a quarter of the largest norm.

    An untrained embedding has similar norms, so every frequency passes. Read the mask together with the shares.

    References:
        The grokking demonstration of TransformerLens, applied to the joint norm of cosine and sine.
        Nanda et al. 2023, section 4.1, choose the largest norms without a threshold.
    """
    return norms > norms.amax(-1, keepdim=True) / 4


def frequency_plane(values: Float[Tensor, "*batch n d"], frequency: int) -> Float[Tensor, "*batch n 2"]:
    """Return the orthogonal projection of n points on the plane of one frequency.

    With u = Σ_t cos(2πkt/n) x_t and v = Σ_t sin(2πkt/n) x_t, the first axis is u/|u|. The second axis is the part of
    v orthogonal to u, scaled to norm 1.

    - Distances never grow, so only a round circle appears round.
    - Noise also bends towards a circle, because u and v depend on the same points. Compare the share of the frequency
      and a shuffled control.
    - If u and v are parallel, or for the frequency n/2, the second coordinate is zero.

    Args:
        values: The points x_t in d dimensions, in the order of t = 0 … n − 1. They are centred here.
        frequency: The frequency k, from 1 to n // 2.
    """
    n = values.shape[-2]
    centred = values - values.mean(-2, keepdim=True)
    rows = fourier_basis(n).to(values)[2 * frequency - 1 : min(2 * frequency + 1, n)]
    directions = einsum(rows, centred, "wave n, ... n d -> ... wave d")
    first = _unit(directions[..., 0, :])
    if len(rows) == 1:
        second = torch.zeros_like(first)
    else:
        along = (directions[..., 1, :] * first).sum(-1, keepdim=True)
        across = directions[..., 1, :] - along * first
        # If both directions are parallel, their difference is rounding error and does not span a plane.
        size = torch.linalg.vector_norm(directions, dim=(-2, -1), keepdim=True)[..., 0]
        rounding = 100 * torch.finfo(values.dtype).eps * size
        across = across * (torch.linalg.vector_norm(across, dim=-1, keepdim=True) > rounding)
        second = _unit(across)
    return einsum(centred, torch.stack([first, second], -2), "... n d, ... wave d -> ... n wave")


def circularity(
    components: Float[Tensor, "*batch n k"],
) -> tuple[Float[Tensor, "*batch k"], Int[Tensor, "*batch k"]]:
    """Return the circularity of each component, and the frequency that attains it.

    c = max_k (2/n) |Σ_t v_t e^{2πikt/n}|² for a component v of norm 1 over the n points, clipped to [0, 1]. For even
    n the frequency n/2 has the factor 1/n. c is the largest share of a single frequency in the squared norm of v.

    - A pure wave has c = 1, noise about ln(n)·2/n, and a constant component 0.
    - Invariant under scaling, an added constant, and rotations and reflections of the points.

    Args:
        components: The values of k components at the n points. They are centred and scaled here.

    Returns:
        The circularity and the frequency of each component.

    References:
        Zhong et al. 2023, appendix.
    """
    n = components.shape[-2]
    centred = components - components.mean(-2, keepdim=True)
    norms = torch.linalg.vector_norm(centred, dim=-2, keepdim=True)
    unit = centred / norms.clamp_min(torch.finfo(centred.dtype).tiny)
    power = torch.fft.rfft(unit, dim=-2)[..., 1:, :].abs().square() * 2 / n
    if n % 2 == 0:
        power[..., -1, :] /= 2
    largest, row = power.max(-2)
    return largest.clamp(0, 1), row + 1


def _unit(vector: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Return the vector scaled to norm 1, or zero for a zero vector."""
    norm = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return vector / norm.clamp_min(torch.finfo(vector.dtype).tiny)
