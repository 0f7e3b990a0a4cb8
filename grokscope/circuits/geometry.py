"""The geometry of points that move from step to step: principal components, their alignment, and clusters."""

import math

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

_NEARLY_DEGENERATE = 0.2
"""The relative difference of variance below which two neighbouring components may rotate into each other."""


def principal_components(
    values: Float[Tensor, "steps n d"], n_components: int
) -> tuple[Float[Tensor, "steps n k"], Float[Tensor, "steps k"]]:
    """Return the points' coordinates U√λ = XV on the first principal components of each step.

    U and λ are the eigenvectors and eigenvalues of the n × n Gram matrix of the centred points X, batched over steps.

    Args:
        values: The points of each step, one per row.
        n_components: The number of components. k is the least of this number, n − 1 and d.

    Returns:
        coordinates: In descending order of variance. The sign of a component makes its largest coordinate in
            magnitude positive.
        explained variance ratios: The share of the total variance on each component.
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
    """Return exp(−Σ λ ln λ), the number of directions over which the variance is spread.

    The value is 1 if one component has all variance, and m if m components have equal variance. It is 1 for points
    that coincide.

    Args:
        ratios: The explained variance ratios λ of all components.

    References:
        Liu et al. 2022, "Towards Understanding Grokking: An Effective Theory of Representation Learning".
    """
    return (-torch.xlogy(ratios, ratios).sum(-1)).exp()


def participation_ratio(ratios: Float[Tensor, "steps k"]) -> Float[Tensor, " steps"]:
    """Return 1/Σ λ², a number of directions like `effective_dimension` that depends more on the largest variances.

    The value is 1 if one component has all variance, and m if m components have equal variance. It is 1 for points
    that coincide.

    Args:
        ratios: The explained variance ratios λ of all components.
    """
    squares = ratios.square().sum(-1)
    return torch.where(squares > 0, 1 / squares, 1.0)


def align_components(
    components: Float[Tensor, "steps n k"], ratios: Float[Tensor, "steps k"]
) -> Float[Tensor, "steps n k"]:
    """Return the components of each step, aligned with those of the next step, backwards from the last step.

    An alignment makes three changes, in which the axes of PCA are arbitrary or uninformative:

    - the order, by the assignment with the largest squared overlap;
    - the sign;
    - a rotation within a pair of neighbours with nearly equal variance, by the orthogonal Procrustes solution.

    Distances within the plane of such a pair do not change. At early steps the first components are therefore those
    that became the first at the last step, even if their variance was small then.

    Args:
        components: Coordinates on the principal components, from `principal_components`.
        ratios: Their explained variance ratios.
    """
    # Imported here because the import takes a third of a second, and reading a saved measure does not need it.
    from scipy.optimize import linear_sum_assignment

    aligned = components.clone()
    for step in range(len(components) - 2, -1, -1):
        target = aligned[step + 1]
        overlap = einsum(_unit_columns(aligned[step]), _unit_columns(target), "n i, n j -> i j")
        sources, targets = linear_sum_assignment(-overlap.square().numpy())
        target_of = dict(zip(sources.tolist(), targets.tolist(), strict=True))
        reordered = torch.empty_like(target)
        for i, j in target_of.items():
            reordered[:, j] = aligned[step, :, i] * (-1.0 if overlap[i, j] < 0 else 1.0)
        for pair in _degenerate_pairs(ratios[step]):
            plane = [target_of[i] for i in pair]
            left, _, right = torch.linalg.svd(reordered[:, plane].T @ target[:, plane])
            reordered[:, plane] = reordered[:, plane] @ left @ right
        aligned[step] = reordered
    return aligned


def silhouettes(distances: Float[Tensor, "*steps n n"], labels: Int[Tensor, "k n"]) -> Float[Tensor, "*steps k"]:
    """Return the mean over n points of the silhouette s_i = (b_i − a_i)/max(a_i, b_i), for k partitions.

    a_i is the mean distance of point i to the others of its class, and b_i is its least mean distance to another
    class. The silhouette is 0 if both are 0.

    Args:
        distances: The distances between the points.
        labels: The class of each point, 0 and up, for each partition. All classes of a partition have the same size.

    References:
        Rousseeuw 1987.
    """
    scores = []
    for classes in labels:
        members = torch.nn.functional.one_hot(classes).to(distances)
        size = members.sum(0)
        to_class = distances @ members
        within = (to_class * members).sum(-1) / (size[classes] - 1)
        nearest = (to_class / size).masked_fill(members.bool(), math.inf).amin(-1)
        scores.append(((nearest - within) / torch.maximum(within, nearest)).nan_to_num(0.0).mean(-1))
    return torch.stack(scores, -1)


def _degenerate_pairs(ratios: Float[Tensor, " k"]) -> list[tuple[int, int]]:
    """Return disjoint pairs of neighbours with nearly equal variance, the closest first."""
    gaps = 1 - ratios[1:] / ratios[:-1].clamp_min(torch.finfo(ratios.dtype).tiny)
    pairs, paired = [], set()
    for i in gaps.argsort().tolist():
        if gaps[i] < _NEARLY_DEGENERATE and not paired & {i, i + 1}:
            pairs.append((i, i + 1))
            paired |= {i, i + 1}
    return pairs


def _unit_columns(columns: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Return the columns divided by their norms; a column of zeros stays zero."""
    return columns / torch.linalg.vector_norm(columns, dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
