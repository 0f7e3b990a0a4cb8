"""The unembedding's geometry: principal components and t-SNE of the columns of W_U, circles and cosets among them."""

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from sklearn.manifold import TSNE
from torch import Tensor

from grokscope.algebra.groups import Group
from grokscope.circuits import controls
from grokscope.circuits.geometry import (
    align_components,
    effective_dimension,
    participation_ratio,
    principal_components,
    silhouettes,
)
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.measures._declaration import measure
from grokscope.series import Series
from grokscope.tasks import Task
from grokscope.trajectory import Trajectory

POWERS_SUBGROUP = ("(0 3)(1 4)", "(1 2)(3 4)")
"""What generates the subgroup of Power et al. 2022, figure 3: a dihedral group of order 10, with 12 cosets in S5."""
_MOST_PERPLEXITY = 30.0
_EXACT_UP_TO = 500
"""t-SNE of so many points is exact, and the same on any number of threads; beyond that Barnes and Hut approximate."""


@measure(version=2, n_checkpoints=6)
def unembedding(
    trajectory: Trajectory,
    *,
    n_components: int = 10,
    perplexity: float | None = None,
    subgroup: tuple[str, ...] | None = None,
    n_shuffles: int = 16,
    seed: int = 0,
) -> Series:
    """Measure how the columns of W_U lie, one point a possible answer (Power et al. 2022, figure 3).

    The points are the answers named by the constant `tokens`: those on the task's circle in the circle's order (zero
    is left out for multiplication and division), or all if the task has none. Arrays over steps:

    - `principal_components` (tokens, k), aligned from step to step (`pca.align`), `explained_variance_ratio` (k);
    - `effective_dimension` and `participation_ratio`, over how many directions the variance is spread (`pca`);
    - `tsne` (tokens, 2): t-SNE of each step by itself, begun from its first two principal components, at
      `perplexity` (default min(30, (n − 1)/3), and at least 1). Distances between far points, sizes of clusters and
      directions mean nothing, and noise has clusters too: read the arrays below beside it.

    If the task has a circle, in its order, with controls as in the measure `embedding`:

    - `component_circularity`, `component_frequency` (k); `circularity`, the mean over the first four;
    - `frequency_shares` (frequencies): the share of variance in each frequency; `inverse_participation_ratio`, the
      sum of their squares: 1 for a single frequency (these without the shuffled control);
    - `nearest_shift`: the s in 1 … n/2 for which token j + s lies nearest to token j, in the mean square over j; for
      one pure frequency f it is ±1/f mod n. Power et al. join x and x + 8.

    For a group and a `subgroup` H given by generators as `Group.elements` writes them (default: in S5 and A5 the
    paper's ⟨(0 3)(1 4), (1 2)(3 4)⟩, in other groups none, and then these arrays are missing):

    - `left_silhouette` and `right_silhouette`: the mean silhouette (Rousseeuw 1987; 1: tight and far apart, 0: no
      clusters) of the cosets xK or Kx in the whole space, the largest over the conjugates K of H; and
      `left_conjugate`, `right_conjugate`, which K that was.

    Constants: `tokens`, `perplexity`; `conjugates` (K, elements); `left_cosets`, `right_cosets` (K, tokens), each
    token's coset. Controls: `…_shuffled`, the same with the answers in random orders, the largest over conjugates
    included (mean over `n_shuffles`, with `…_shuffled_stderr`). Raise GrokscopeError for an option out of range, for
    a subgroup where the task has no group, and for one whose cosets are single elements or everything.
    """
    if n_components < 1:
        raise GrokscopeError(f"n_components: {n_components}. Allowed: from 1.")
    task = trajectory.task
    tokens = torch.arange(task.d_vocab_out) if task.circle is None else task.circle
    n = len(tokens)
    orders = controls.random_orders(n, n_shuffles, seed)
    perplexity = max(1.0, min(_MOST_PERPLEXITY, (n - 1) / 3)) if perplexity is None else perplexity
    if not 0 < perplexity < n:
        raise GrokscopeError(f"perplexity: {perplexity}; allowed: above 0 and below {n}, the number of points.")
    values = rearrange(trajectory.parameter("unembed.W_U"), "step d_model token -> step token d_model")
    values = values[:, tokens].double()
    components, all_ratios = principal_components(values, n)
    components, ratios = components[..., :n_components], all_ratios[:, :n_components]
    arrays = {
        "principal_components": align_components(components, ratios),
        "explained_variance_ratio": ratios,
        "effective_dimension": effective_dimension(all_ratios),
        "participation_ratio": participation_ratio(all_ratios),
        "tsne": torch.stack([tsne(points, perplexity) for points in values]),
    }
    constants = {"tokens": tokens, "perplexity": torch.tensor(perplexity, dtype=torch.float64)}
    if task.circle is not None:
        arrays |= _circular(components)
        arrays["frequency_shares"] = cyclic.frequency_shares(values)
        arrays["inverse_participation_ratio"] = cyclic.inverse_participation_ratio(arrays["frequency_shares"])
        arrays["nearest_shift"] = shift_distances(values).argmin(-1) + 1
        samples = [_circular(components[:, order]) for order in orders]
        names = ("circularity", "component_circularity")
        arrays |= controls.shuffled_control([{name: sample[name] for name in names} for sample in samples])
    chosen = _subgroup(task, subgroup)
    if chosen is not None:
        group, conjugates = chosen
        constants["conjugates"] = torch.from_numpy(np.stack(conjugates))
        distances = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")
        for side, cosets_of in (("left", group.left_cosets), ("right", group.right_cosets)):
            cosets = torch.from_numpy(np.stack([cosets_of(one)[tokens.numpy()] for one in conjugates]))
            found = silhouettes(distances, cosets)
            arrays[f"{side}_silhouette"], arrays[f"{side}_conjugate"] = found.max(-1)
            arrays |= controls.shuffled_control(
                [{f"{side}_silhouette": silhouettes(distances, cosets[:, order]).amax(-1)} for order in orders]
            )
            constants[f"{side}_cosets"] = cosets
    return Series(
        "unembedding",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def tsne(points: Float[Tensor, "n d"], perplexity: float) -> Float[Tensor, "n 2"]:
    """Return scikit-learn's t-SNE of some points, begun from their first two principal components.

    Nothing in it is random, so equal points give equal pictures. Points that all coincide stay at zero.
    """
    n = len(points)
    plain, _ = principal_components(points[None], 2)
    begin = np.zeros((n, 2))
    begin[:, : plain.shape[-1]] = plain[0].numpy()
    spread = begin[:, 0].std()
    if not spread > 0:
        return points.new_zeros(n, 2)
    # Rounded, so that what differs in the last bit alone gives the same picture.
    begin = (begin / spread * 1e-4).astype(np.float32)
    method = "exact" if n <= _EXACT_UP_TO else "barnes_hut"
    found = TSNE(2, perplexity=perplexity, init=begin, method=method, random_state=0).fit_transform(points.numpy())
    return torch.from_numpy(found).to(points)


def shift_distances(values: Float[Tensor, "*steps n d"]) -> Float[Tensor, "*steps n_shifts"]:
    """Return the mean over j of |x_{j+s} − x_j|² for each shift s = 1 … n // 2, j + s taken modulo n."""
    shifted = [values.roll(-s, -2) for s in range(1, values.shape[-2] // 2 + 1)]
    return (
        torch.stack([reduce((one - values).square(), "... n d -> ...", "sum") for one in shifted], -1)
        / (values.shape[-2])
    )


def _circular(components: Float[Tensor, "steps n k"]) -> dict[str, Tensor]:
    by_component, frequency = cyclic.circularity(components)
    return {
        "circularity": by_component[:, :4].mean(-1),
        "component_circularity": by_component,
        "component_frequency": frequency,
    }


def _subgroup(task: Task, names: tuple[str, ...] | None) -> tuple[Group, list[Int[np.ndarray, " m"]]] | None:
    """Return the group and the conjugates of the subgroup that `names` generate; None where there is none to try."""
    group = task.group
    if names is None and group is not None and group.name in ("S5", "A5"):
        names = POWERS_SUBGROUP
    if names is None:
        return None
    if group is None:
        raise GrokscopeError(f"subgroup: {task.formula} has no group; allowed: None.")
    subgroup = group.subgroup([group.index(name) for name in names])
    if not 1 < len(subgroup) < len(group):
        raise GrokscopeError(
            f"subgroup: {', '.join(names)} generate {len(subgroup)} of the {len(group)} elements of {group.name}; "
            f"allowed: more than one and not all."
        )
    return group, group.conjugate_subgroups(subgroup)
