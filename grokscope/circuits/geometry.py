"""Principal components of points that move from step to step, batched over the steps, and their alignment."""

import math

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

_NEAR_DEGENERATE = 0.2
"""Two neighbouring components whose variances differ by less than this share may rotate into each other."""


def principal_components(
    values: Float[Tensor, "steps n d"], n_components: int
) -> tuple[Float[Tensor, "steps n k"], Float[Tensor, "steps k"]]:
    """Return the points' coordinates on their first principal components, and the explained variance ratios.

    Plain PCA of each step by itself, in descending order of variance, each component's sign such that its
    coordinate of largest magnitude is positive. k is `n_components` or what n and d allow, if that is fewer.
    Batched over steps by the eigenvectors of the centred points' n × n Gram matrix, U√λ = XV.
    """
    n, d = values.shape[-2:]
    k = min(n_components, n - 1, d)
    centred = values - values.mean(-2, keepdim=True)
    gram = einsum(centred, centred, "step i d, step j d -> step i j")
    eigenvalues, eigenvectors = torch.linalg.eigh(gram)
    variances = eigenvalues.flip(-1)
    variances = torch.where(variances > n * torch.finfo(values.dtype).eps * variances[:, :1], variances, 0.0)
    coordinates = eigenvectors.flip(-1)[..., :k] * variances[:, None, :k].sqrt()
    largest = coordinates.gather(1, coordinates.abs().argmax(1, keepdim=True))
    ratios = variances[:, :k] / variances.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    return coordinates * torch.where(largest < 0, -1.0, 1.0), ratios


def effective_dimension(ratios: Float[Tensor, "steps k"]) -> Float[Tensor, " steps"]:
    """Return exp(−Σ λ ln λ) of all explained variance ratios λ: how many directions the variance is spread over.

    1 if one component holds everything, k if k hold the same; 1 for points that coincide, which have no variance.
    (Liu et al. 2022, "Effective theory".)
    """
    return (-torch.xlogy(ratios, ratios).sum(-1)).exp()


def participation_ratio(ratios: Float[Tensor, "steps k"]) -> Float[Tensor, " steps"]:
    """Return 1/Σ λ² of all explained variance ratios λ: like `effective_dimension`, but ruled by the largest.

    1 if one component holds everything, k if k hold the same; 1 for points that coincide, which have no variance.
    """
    squares = ratios.square().sum(-1)
    return torch.where(squares > 0, 1 / squares, 1.0)


def align(components: Float[Tensor, "steps n k"], ratios: Float[Tensor, "steps k"]) -> Float[Tensor, "steps n k"]:
    """Return the components with each step made to look like the next, backwards from the last.

    Allowed are a change of order, of sign, and a rotation within a pair of neighbours whose variances are
    nearly equal, inside which plain PCA's choice of axes is arbitrary. The order is the assignment of largest
    overlap, the rotation the orthogonal Procrustes solution. Distances within a pair's plane do not change.
    So early on, the first components are those that became the last step's first, whatever their variance then.
    """
    # Only now: it takes a third of a second to import, which a saved measure need not wait for.
    from scipy.optimize import linear_sum_assignment

    aligned = components.clone()
    for step in range(len(components) - 2, -1, -1):
        target = aligned[step + 1]
        overlap = einsum(_unit(aligned[step]), _unit(target), "n i, n j -> i j")
        source, place = linear_sum_assignment(-overlap.square().numpy())
        slot = dict(zip(source.tolist(), place.tolist(), strict=True))
        moved = torch.empty_like(target)
        for i, to in slot.items():
            moved[:, to] = aligned[step, :, i] * (-1.0 if overlap[i, to] < 0 else 1.0)
        for i, j in _degenerate_pairs(ratios[step]):
            pair = [slot[i], slot[j]]
            left, _, right = torch.linalg.svd(moved[:, pair].T @ target[:, pair])
            moved[:, pair] = moved[:, pair] @ left @ right
        aligned[step] = moved
    return aligned


def _degenerate_pairs(ratios: Float[Tensor, " k"]) -> list[tuple[int, int]]:
    """Return disjoint pairs of neighbours of nearly equal variance, the closest first."""
    gaps = 1 - ratios[1:] / ratios[:-1].clamp_min(torch.finfo(ratios.dtype).tiny)
    pairs, taken = [], set()
    for i in gaps.argsort().tolist():
        if gaps[i] < _NEAR_DEGENERATE and not taken & {i, i + 1}:
            pairs.append((i, i + 1))
            taken |= {i, i + 1}
    return pairs


def _unit(columns: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    return columns / torch.linalg.vector_norm(columns, dim=0).clamp_min(torch.finfo(columns.dtype).tiny)


def silhouettes(distances: Float[Tensor, "*steps n n"], labels: Int[Tensor, "k n"]) -> Float[Tensor, "*steps k"]:
    """Return the mean silhouette of each of k ways to cut n points into classes of one size.

    s_i = (b_i − a_i)/max(a_i, b_i), a_i the mean distance to the others of the own class, b_i the least mean distance
    to another class (Rousseeuw 1987); 0 where both are 0.
    """
    scores = []
    for one in labels:
        members = torch.nn.functional.one_hot(one).to(distances)
        size = members.sum(0)
        to_class = distances @ members
        own = (to_class * members).sum(-1) / (size[one] - 1)
        other = (to_class / size).masked_fill(members.bool(), math.inf).amin(-1)
        scores.append(((other - own) / torch.maximum(own, other)).nan_to_num(0.0).mean(-1))
    return torch.stack(scores, -1)
