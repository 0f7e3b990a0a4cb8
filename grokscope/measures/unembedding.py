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
from grokscope.measures._ranges import check_ranges
from grokscope.series import Series
from grokscope.tasks import Task
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

POWERS_SUBGROUP = ("(0 3)(1 4)", "(1 2)(3 4)")
"""Generators of the subgroup of Power et al. 2022, figure 3: a dihedral group of order 10, with 12 cosets in S5."""
_MOST_PERPLEXITY = 30.0
_MOST_EXACT_POINTS = 500
"""The most points for exact t-SNE, which is the same for any number of threads; more points use Barnes–Hut."""


_VARIABLES = with_companions(
    {
        "principal_components": Variable("principal components", "weight", ("token", "component")),
        "explained_variance_ratio": Variable("explained variance ratio", dims=("component",)),
        "effective_dimension": Variable("effective dimension"),
        "participation_ratio": Variable("participation ratio"),
        "tsne": Variable("t-SNE", dims=("token", "axis")),
        "component_circularity": Variable("circularity of each component", dims=("component",)),
        "component_frequency": Variable("frequency of each component", dims=("component",)),
        "circularity": Variable("circularity of PCs 1–4"),
        "frequency_shares": Variable("share of the variance in each frequency", dims=("frequency",)),
        "inverse_participation_ratio": Variable("inverse participation ratio of the frequencies"),
        "nearest_shift": Variable("shift to the nearest token"),
        "left_silhouette": Variable("silhouette of left cosets"),
        "right_silhouette": Variable("silhouette of right cosets"),
        "left_conjugate": Variable("conjugate of the best left cosets"),
        "right_conjugate": Variable("conjugate of the best right cosets"),
        "conjugates": Variable("elements of each conjugate", dims=("conjugate", "member")),
        "left_cosets": Variable("left coset of each token", dims=("conjugate", "token")),
        "right_cosets": Variable("right coset of each token", dims=("conjugate", "token")),
        "tokens": Variable("token", dims=("token",), role="coordinate"),
        "perplexity": Variable("perplexity of t-SNE"),
    },
    shuffled=("component_circularity", "circularity", "left_silhouette", "right_silhouette"),
)


@measure(version=2, n_checkpoints=6, variables=_VARIABLES)
def unembedding(
    trajectory: Trajectory,
    *,
    n_components: int = 10,
    perplexity: float | None = None,
    subgroup: tuple[str, ...] | None = None,
    n_shuffles: int = 16,
    seed: int = 0,
) -> Series:
    """Compute components, t-SNE, circles and cosets of the columns of W_U, one point per possible answer.

    The points are the answers of the constant `tokens`: the tokens on the task's circle, in the circle's order,
    without zero for multiplication and division. If the task has no circle, they are all answers.

    Args:
        trajectory: The checkpoints to measure.
        n_components: The most principal components, from 1. The default 10 shows five circles.
        perplexity: The perplexity of t-SNE, above 0 and below the number n of points. The default None means min(30,
            (n − 1)/3), and at least 1.
        subgroup: The generators of a subgroup H, as `Group.elements` writes them. The default None means the paper's
            ⟨(0 3)(1 4), (1 2)(3 4)⟩ in S5 and A5, and for no cosets in other groups.
        n_shuffles: The number of random orders of the control, from 2. The standard error of the control falls as
            1/√n_shuffles.
        seed: The seed of the random orders. All steps share them.

    Returns:
        Series with arrays over the steps.

        - `principal_components` (steps, tokens, components): aligned from step to step (`geometry.align_components`).
        - `explained_variance_ratio` (steps, components), from 0 to 1.
        - `effective_dimension`, `participation_ratio` (steps): the number of directions that the variance is spread
          over, as in the measure `embedding`.
        - `tsne` (steps, tokens, 2): t-SNE of each step by itself, starting from its first two components. Distances
          between far points, sizes of clusters and directions mean nothing, and noise has clusters too. Read it
          together with the arrays below.

        With a circle, in the circle's order:

        - `component_circularity`, `component_frequency` (steps, components), `circularity` (steps),
          `frequency_shares` (steps, frequencies) and `inverse_participation_ratio` (steps): as in the measure
          `embedding`.
        - `nearest_shift` (steps): the s in 1 … n/2 for which token j + s is nearest to token j, in the mean square
          over j. For one pure frequency f it is ±1/f mod n. Power et al. join x and x + 8.

        With a subgroup H:

        - `left_silhouette`, `right_silhouette` (steps), from −1 to 1: the mean silhouette of the cosets xK or Kx in
          the whole space, the largest over the conjugates K of H. 1 is tight and far apart; 0 is not clustered.
        - `left_conjugate`, `right_conjugate` (steps): the index of that K in the constant `conjugates`.

        Constants: `tokens`; `perplexity`; `conjugates` (conjugates, elements of K); `left_cosets`, `right_cosets`
        (conjugates, tokens), the coset of each token.

    Raises:
        GrokscopeError: An option is out of range, the task has no group for `subgroup`, or the cosets are single
            elements or everything.

    References:
        - Power et al. 2022, figure 3.
        - Rousseeuw 1987: the silhouette.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, rescaled ReLU neurons, a shift of all
          logits.

    Controls:
        - `…_shuffled`: circularity and silhouettes with the answers in random orders, the largest over conjugates
          included. The mean over the orders, with its standard error `…_shuffled_stderr`.

    Cost:
        - One eigendecomposition of an n × n matrix and one t-SNE per checkpoint, which is most of the time.
    """
    task = trajectory.task
    tokens = torch.arange(task.d_vocab_out) if task.circle is None else task.circle
    n = len(tokens)
    perplexity = max(1.0, min(_MOST_PERPLEXITY, (n - 1) / 3)) if perplexity is None else perplexity
    check_ranges(
        ("n_components", n_components, n_components >= 1, "from 1"),
        ("perplexity", perplexity, 0 < perplexity < n, f"above 0 and below {n}, the number of points"),
    )
    orders = controls.random_orders(n, n_shuffles, seed)
    values = rearrange(trajectory.matrix("unembedding"), "step d_model token -> step token d_model")
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
        arrays |= _circular_quantities(values, components, orders)
    group_and_conjugates = _subgroup(task, subgroup)
    if group_and_conjugates is not None:
        group, conjugates = group_and_conjugates
        constants |= {
            "conjugates": torch.from_numpy(np.stack(conjugates)),
            "left_cosets": torch.from_numpy(np.stack([group.left_cosets(K)[tokens.numpy()] for K in conjugates])),
            "right_cosets": torch.from_numpy(np.stack([group.right_cosets(K)[tokens.numpy()] for K in conjugates])),
        }
        distances = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")
        for side in ("left", "right"):
            arrays |= _coset_quantities(side, distances, constants[f"{side}_cosets"], orders)
    return Series(
        "unembedding",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def tsne(points: Float[Tensor, "n d"], perplexity: float) -> Float[Tensor, "n 2"]:
    """Return scikit-learn's t-SNE of some points, starting from their first two principal components.

    Nothing is random, so equal points give equal pictures. Points that all coincide stay at zero.

    Args:
        points: The points, one per row.
        perplexity: The perplexity, above 0 and below the number of points.
    """
    n = len(points)
    plane, _ = principal_components(points[None], 2)
    start = np.zeros((n, 2))
    start[:, : plane.shape[-1]] = plane[0].numpy()
    spread = start[:, 0].std()
    if not spread > 0:
        return points.new_zeros(n, 2)
    # Rounded, so that a difference in the last bit gives the same picture.
    start = (start / spread * 1e-4).astype(np.float32)
    method = "exact" if n <= _MOST_EXACT_POINTS else "barnes_hut"
    embedder = TSNE(2, perplexity=perplexity, init=start, method=method, random_state=0)
    return torch.from_numpy(embedder.fit_transform(points.numpy())).to(points)


def shift_distances(values: Float[Tensor, "*steps n d"]) -> Float[Tensor, "*steps n_shifts"]:
    """Return the mean over j of |x_{j+s} − x_j|² for each shift s = 1 … n // 2, with j + s modulo n."""
    n = values.shape[-2]
    differences = [values.roll(-shift, -2) - values for shift in range(1, n // 2 + 1)]
    sums = [reduce(difference.square(), "... n d -> ...", "sum") for difference in differences]
    return torch.stack(sums, -1) / n


def _circular_quantities(
    values: Float[Tensor, "steps n d"], components: Float[Tensor, "steps n k"], orders: Int[Tensor, "n_orders n"]
) -> dict[str, Tensor]:
    """Return the quantities that depend on the order of the circle, with their control."""
    shares = cyclic.frequency_shares(values)
    circularity, frequency = cyclic.circularity(components)
    samples = []
    for order in orders:
        shuffled_circularity, _ = cyclic.circularity(components[:, order])
        sample = {
            "circularity": shuffled_circularity[:, :4].mean(-1),
            "component_circularity": shuffled_circularity,
        }
        samples.append(sample)
    return {
        "circularity": circularity[:, :4].mean(-1),
        "component_circularity": circularity,
        "component_frequency": frequency,
        "frequency_shares": shares,
        "inverse_participation_ratio": cyclic.inverse_participation_ratio(shares),
        "nearest_shift": shift_distances(values).argmin(-1) + 1,
        **controls.shuffled_control(samples),
    }


def _coset_quantities(
    side: str,
    distances: Float[Tensor, "steps n n"],
    cosets: Int[Tensor, "conjugates n"],
    orders: Int[Tensor, "n_orders n"],
) -> dict[str, Tensor]:
    """Return the largest silhouette of one side's cosets over the conjugates, its conjugate and its control."""
    largest, conjugate = silhouettes(distances, cosets).max(-1)
    name = f"{side}_silhouette"
    samples = [{name: silhouettes(distances, cosets[:, order]).amax(-1)} for order in orders]
    return {name: largest, f"{side}_conjugate": conjugate, **controls.shuffled_control(samples)}


def _subgroup(task: Task, generators: tuple[str, ...] | None) -> tuple[Group, list[Int[np.ndarray, " m"]]] | None:
    """Return the group and the conjugates of the subgroup that `generators` generate; None without a subgroup."""
    group = task.group
    if generators is None and group is not None and group.name in ("S5", "A5"):
        generators = POWERS_SUBGROUP
    if generators is None:
        return None
    if group is None:
        raise GrokscopeError(f"subgroup: {task.formula} has no group. Allowed: None.")
    subgroup = group.subgroup([group.index(name) for name in generators])
    if not 1 < len(subgroup) < len(group):
        raise GrokscopeError(
            f"subgroup: {', '.join(generators)} generate {len(subgroup)} of the {len(group)} elements of {group.name}"
            f". Allowed: generators of more than one and not all elements."
        )
    return group, group.conjugate_subgroups(subgroup)
