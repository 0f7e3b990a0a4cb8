"""The real Fourier basis of Z_n for any n: components, norms, key frequencies, circularity.

The basis is orthonormal: a constant, then for each frequency k = 1 … n // 2 the cosine and the sine of 2πkt/n,
t = 0 … n − 1; for even n the last frequency, n / 2, has a cosine only. (Nanda et al. 2023, section 3.2.)
"""

import math

import torch
from einops import einsum, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor


def frequencies(n: int) -> Int[Tensor, " n_frequencies"]:
    """Return the frequencies of Z_n: 1 … n // 2."""
    return torch.arange(1, n // 2 + 1)


def fourier_basis(n: int) -> Float[Tensor, "n n"]:
    """Return the orthonormal real Fourier basis of Z_n in float64, one vector a row.

    Row 0 is constant; rows 2k − 1 and 2k are cos(2πkt/n) and sin(2πkt/n), scaled to norm 1.
    """
    k, t = frequencies(n)[:, None], torch.arange(n)[None, :]
    # Reduced modulo n before the division, the angle is exact to the last bit for any k and t.
    angle = (k * t % n).double() * (2 * math.pi / n)
    waves = torch.stack([angle.cos(), angle.sin()], dim=1).flatten(0, 1)[: n - 1]
    basis = torch.cat([torch.ones(1, n, dtype=torch.float64), waves])
    return basis / torch.linalg.vector_norm(basis, dim=1, keepdim=True)


def fourier_components(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
    """Return the components of `values` along the Fourier basis over the axis of the n points."""
    basis = fourier_basis(values.shape[-2]).to(values)
    return einsum(basis, values, "row n, ... n d -> ... row d")


def fourier_norms(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n_frequencies"]:
    """Return each frequency's norm √(|cosine component|² + |sine component|²), the norm over the d columns.

    The squares over all frequencies sum to the squared norm of the centred values (Parseval).
    """
    power = reduce(fourier_components(values).square(), "... row d -> ... row", "sum")[..., 1:]
    if power.shape[-1] % 2:  # An even n: its last frequency has no sine.
        power = torch.nn.functional.pad(power, (0, 1))
    return reduce(power, "... (frequency two) -> ... frequency", "sum", two=2).sqrt()


def frequency_shares(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n_frequencies"]:
    """Return the share of the centred values' variance that lies in each frequency; the shares sum to 1."""
    power = fourier_norms(values).square()
    return power / power.sum(-1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)


def keep_frequencies(
    values: Float[Tensor, "*batch n d"], kept: Int[Tensor, " n_kept"]
) -> Float[Tensor, "*batch n d"]:
    """Return the projection of `values` on the constant and the given frequencies, over the axis of the n points.

    With all frequencies these are the values themselves, with none each column's mean.
    """
    n = values.shape[-2]
    rows = torch.cat([kept.new_zeros(1), 2 * kept - 1, 2 * kept[2 * kept < n]])
    basis = fourier_basis(n).to(values)[rows]
    return einsum(basis, basis, values, "row m, row n, ... n d -> ... m d")


def component_norms(values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n_waves"]:
    """Return the norm over the d columns of each basis vector's component, cosines and sines by themselves.

    The constant is left out: n − 1 numbers, which are those that Nanda et al. 2023 take the Gini coefficient of.
    """
    return torch.linalg.vector_norm(fourier_components(values)[..., 1:, :], dim=-1)


def gini(values: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return the Gini coefficient of non-negative values: how few of them hold how much of their sum.

    G = 1 − 2 Σ_k c_k/‖c‖₁ · (n − k + ½)/n over the values in ascending order, k = 1 … n (Hurley & Rickard 2009).
    0 if all are equal, also if all are zero; 1 − 1/n if a single one is not zero. Multiplying all by a factor
    changes nothing.
    """
    ascending, n = values.sort(-1).values, values.shape[-1]
    weights = (n - torch.arange(n, dtype=values.dtype, device=values.device) - 0.5) / n
    total = ascending.sum(-1)
    found = 1 - 2 * (ascending * weights).sum(-1) / total.clamp_min(torch.finfo(values.dtype).tiny)
    return torch.where(total > 0, found, 0.0)


def inverse_participation_ratio(shares: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return Σ_k s_k² of shares that sum to 1: 1 if one of them holds all, 1/n if all are equal.

    With s_k the share of a spectrum's power in frequency k this is Doshi et al. 2023 ("To grok or not to grok"),
    Σ_k (|f_k|/‖f‖)^{2r} with their r = 2; its inverse is the number of frequencies that take part.
    """
    return shares.square().sum(-1)


def key_frequencies(norms: Float[Tensor, "*batch n_frequencies"]) -> Bool[Tensor, "*batch n_frequencies"]:
    """Return which frequencies are key: those whose norm exceeds a quarter of the largest.

    This is the rule of TransformerLens' grokking demonstration, applied to each frequency's norm over cosine
    and sine together; Nanda et al. 2023 (section 4.1) pick the largest norms without a threshold. For an
    untrained embedding, whose norms are all alike, every frequency passes: read it with the shares beside it.
    """
    return norms > norms.amax(-1, keepdim=True) / 4


def frequency_plane(values: Float[Tensor, "*batch n d"], frequency: int) -> Float[Tensor, "*batch n 2"]:
    """Return the n points in the plane that one frequency's cosine and sine components span in d dimensions.

    With u = Σ_t cos(2πkt/n) x_t and v = Σ_t sin(2πkt/n) x_t, the first axis is u/|u| and the second the part
    of v orthogonal to u, of norm 1, so this is an orthogonal projection: a circle appears round only if it is
    round. Even noise bends towards a circle here, because u and v are made of the same points: judge it by the
    frequency's share and a shuffled control. For frequency n/2 the second coordinate is zero.
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
        # Where both waves lie along one direction, what is left across it is rounding and spans no plane.
        size = torch.linalg.vector_norm(directions, dim=(-2, -1), keepdim=True)[..., 0]
        rounding = 100 * torch.finfo(values.dtype).eps * size
        across = across * (torch.linalg.vector_norm(across, dim=-1, keepdim=True) > rounding)
        second = _unit(across)
    return einsum(centred, torch.stack([first, second], -2), "... n d, ... wave d -> ... n wave")


def circularity(
    components: Float[Tensor, "*batch n k"],
) -> tuple[Float[Tensor, "*batch k"], Int[Tensor, "*batch k"]]:
    """Return each component's circularity and the frequency at which it is reached.

    For a component v of unit norm over the n points, c = max_k (2/n) |Σ_t v_t e^{2πikt/n}|², clipped to [0, 1]
    (Zhong et al. 2023, appendix; for even n the frequency n/2 has 1/n in place of 2/n): the largest share of
    v's squared norm in one frequency. 1 is a pure wave; noise has about ln(n)·2/n. Components are centred and
    scaled here; a component that is zero has circularity 0.
    """
    n = components.shape[-2]
    centred = components - components.mean(-2, keepdim=True)
    norms = torch.linalg.vector_norm(centred, dim=-2, keepdim=True)
    unit = centred / norms.clamp_min(torch.finfo(centred.dtype).tiny)
    power = torch.fft.rfft(unit, dim=-2)[..., 1:, :].abs().square() * 2 / n
    if n % 2 == 0:
        power[..., -1, :] /= 2
    largest, where = power.max(-2)
    return largest.clamp(0, 1), where + 1


def _unit(vector: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    norm = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return vector / norm.clamp_min(torch.finfo(vector.dtype).tiny)
