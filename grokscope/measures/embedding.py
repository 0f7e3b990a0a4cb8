"""The embedding circle: principal components of W_E over the task's tokens, and their Fourier content."""

from dataclasses import dataclass

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.geometry import (
    align_components,
    effective_dimension,
    participation_ratio,
    principal_components,
)
from grokscope.fourier import cyclic
from grokscope.measures._chunks import evaluate_in_chunks
from grokscope.measures._declaration import Panel, measure
from grokscope.measures._ranges import check_ranges
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_MOST_PLANES = 6
_CHECKPOINTS_PER_CHUNK = 32
_WITH_CONTROL = (
    "circularity",
    "component_circularity",
    "key_frequency_share",
    "inverse_participation_ratio",
)


@dataclass(frozen=True)
class _Shuffle:
    """A random order of the tokens, and the Fourier waves of this order's strongest frequencies."""

    order: Int[Tensor, " n"]
    key_basis: Float[Tensor, "n_waves n"]
    """The waves in this order, with columns in the tokens' own order, so that no embedding needs to be reordered."""


_VARIABLES = with_companions(
    {
        "principal_components": Variable("principal components", "weight", ("token", "component")),
        "explained_variance_ratio": Variable("explained variance ratio", dims=("component",)),
        "effective_dimension": Variable("effective dimension"),
        "participation_ratio": Variable("participation ratio"),
        "component_circularity": Variable("circularity of each component", dims=("component",)),
        "component_frequency": Variable("frequency of each component", dims=("component",)),
        "circularity": Variable("circularity of PCs 1–4"),
        "frequency_shares": Variable("share of the variance in each frequency", dims=("frequency",)),
        "key_frequency_share": Variable("key frequencies' share of W_E"),
        "inverse_participation_ratio": Variable("inverse participation ratio of the frequencies"),
        "frequency_planes": Variable("tokens in the plane of each frequency", "weight", ("plane", "token", "axis")),
        "tokens": Variable("token", dims=("token",), role="coordinate"),
        "frequencies": Variable("frequency", dims=("frequency",), role="coordinate"),
        "key_frequencies": Variable("key frequency", dims=("key_frequency",), role="coordinate"),
        "plane_frequencies": Variable("frequency", dims=("plane",), role="coordinate"),
        "n_examples_off_circle": Variable("number of equations off the circle"),
    },
    shuffled=("component_circularity", "circularity", "key_frequency_share"),
    initialization=(
        *("component_circularity", "circularity", "key_frequency_share"),
        "inverse_participation_ratio",
    ),
)
_PANELS = (Panel("circle", "how much of a circle", ("circularity", "key_frequency_share")),)


@measure(version=2, variables=_VARIABLES, panels=_PANELS)
def embedding(trajectory: Trajectory, *, n_components: int = 10, n_shuffles: int = 16, seed: int = 0) -> Series:
    """Compute the principal components of W_E over the task's tokens, and how well they follow the task's circle.

    The rows of W_E are those of the constant `tokens`: the tokens on the task's circle, in the circle's order. For
    multiplication and division these are the powers of the smallest primitive root, without zero. If the task has no
    circle, they are all elements, and only the components and dimensions are measured.

    Plain PCA mixes the planes of two frequencies of nearly equal variance. That lowers circularity although the
    network does not change, so read it together with `frequency_planes`.

    Args:
        trajectory: The checkpoints to measure. The key frequencies are those of the last one.
        n_components: The most principal components, from 1. The default 10 shows five circles.
        n_shuffles: The number of random orders of the control, from 2. The standard error of the control falls as
            1/√n_shuffles.
        seed: The seed of the random orders. All steps share them.

    Returns:
        Series with arrays over the steps. A circle takes two components of equal variance.

        - `principal_components` (steps, tokens, components): aligned from step to step (`geometry.align_components`).
        - `explained_variance_ratio` (steps, components), from 0 to 1.
        - `effective_dimension` (steps): exp(−Σ λ ln λ) over all explained variance ratios λ.
        - `participation_ratio` (steps): 1/Σ λ². Like the effective dimension, it counts the directions that the
          variance is spread over, but the largest dominate.
        - `component_circularity` (steps, components), from 0 to 1: the largest share of a component in one frequency;
          1 is a pure wave along the circle.
        - `component_frequency` (steps, components): that frequency.
        - `circularity` (steps), from 0 to 1: the mean of the first four.
        - `frequency_shares` (steps, frequencies), from 0 to 1: the share of the variance in each frequency.
        - `key_frequency_share` (steps), from 0 to 1: the sum over the key frequencies.
        - `inverse_participation_ratio` (steps): Σ share² over the frequencies; 1 for a single frequency, and
          1/(number of frequencies) for a flat spectrum.
        - `frequency_planes` (steps, planes, tokens, 2): the tokens in the plane of each of the strongest key
          frequencies.

        Constants: `tokens`; `frequencies`; `key_frequencies`, whose norm exceeds a quarter of the largest at the last
        step; `plane_frequencies`, up to six of them, the strongest first; `n_examples_off_circle`.

    Raises:
        GrokscopeError: An option is out of range.

    References:
        - Liu et al. 2022, "Effective theory": the effective dimension.
        - Zhong et al. 2023, appendix: circularity.
        - Nanda et al. 2023, section 4.1: the frequencies of W_E, there as norms.
        - Doshi et al. 2023: the inverse participation ratio, there of each neuron's weights.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, rescaled ReLU neurons, a shift of all
          logits.

    Controls:
        - `…_shuffled`: the tokens in random orders, with as many of each order's own strongest frequencies as key
          frequencies. The mean over the orders, with its standard error `…_shuffled_stderr`.
        - `…_initialization`: the untrained model. It is the only control of `inverse_participation_ratio`.

    Cost:
        - One eigendecomposition of an n × n matrix per checkpoint, for n tokens.
    """
    check_ranges(("n_components", n_components, n_components >= 1, "from 1"))
    task = trajectory.task
    tokens = torch.arange(task.n_elements) if task.circle is None else task.circle
    n = len(tokens)
    orders = controls.random_orders(n, n_shuffles, seed)
    constants = {"tokens": tokens, "n_examples_off_circle": torch.tensor(task.n_examples_off_circle)}
    key = strongest = torch.empty(0, dtype=torch.int64)
    shuffles: list[_Shuffle] = []
    if task.circle is not None:
        (last,) = _values(trajectory[-1:], tokens)
        norms = cyclic.fourier_norms(last)
        key = cyclic.frequencies(n)[cyclic.key_frequencies(norms)]
        strongest = norms.argsort(descending=True)[: min(_MOST_PLANES, len(key))] + 1
        shuffles = _shuffles(last, len(key), orders)
        untrained = trajectory.model.matrix("embedding").read(trajectory.untrained)[None, tokens].double()
        circular = _circular_quantities(untrained, principal_components(untrained, n_components)[0], key)
        constants |= controls.untrained_control({name: circular[name][0] for name in _WITH_CONTROL})
        constants |= {
            "frequencies": cyclic.frequencies(n),
            "key_frequencies": key,
            "plane_frequencies": strongest,
        }

    def quantities(chunk: Trajectory) -> dict[str, Tensor]:
        values = _values(chunk, tokens)
        components, ratios = principal_components(values, n)
        arrays = {
            "effective_dimension": effective_dimension(ratios),
            "participation_ratio": participation_ratio(ratios),
        }
        components, ratios = components[..., :n_components], ratios[:, :n_components]
        arrays |= {"principal_components": components, "explained_variance_ratio": ratios}
        if task.circle is not None:
            planes = [cyclic.frequency_plane(values, int(frequency)) for frequency in strongest]
            no_planes = values.new_zeros(len(values), 0, n, 2)
            arrays |= {
                **_circular_quantities(values, components, key),
                "frequency_planes": torch.stack(planes, 1) if planes else no_planes,
                **_shuffled_quantities(values, components, shuffles),
            }
        return arrays

    arrays = evaluate_in_chunks(trajectory, _CHECKPOINTS_PER_CHUNK, quantities)
    components, ratios = arrays["principal_components"], arrays["explained_variance_ratio"]
    arrays["principal_components"] = align_components(components, ratios)
    return Series(
        "embedding",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def _values(trajectory: Trajectory, tokens: Int[Tensor, " n"]) -> Float[Tensor, "steps n d"]:
    """Return the rows of W_E at some tokens, in float64."""
    return trajectory.matrix("embedding")[:, tokens].double()


def _circular_quantities(
    values: Float[Tensor, "steps n d"], components: Float[Tensor, "steps n k"], key: Int[Tensor, " n_key"]
) -> dict[str, Tensor]:
    """Return the quantities that depend on the order of the circle."""
    circularity, frequency = cyclic.circularity(components)
    shares = cyclic.frequency_shares(values)
    return {
        "circularity": circularity[:, :4].mean(-1),
        "component_circularity": circularity,
        "component_frequency": frequency,
        "frequency_shares": shares,
        "key_frequency_share": shares[:, key - 1].sum(-1),
        "inverse_participation_ratio": cyclic.inverse_participation_ratio(shares),
    }


def _shuffles(last: Float[Tensor, "n d"], n_key: int, orders: Int[Tensor, "n_shuffles n"]) -> list[_Shuffle]:
    """Return each random order with the waves of its own `n_key` strongest frequencies at the last step."""
    n = len(last)
    basis = cyclic.fourier_basis(n)
    shuffles = []
    for order in orders:
        key = cyclic.fourier_norms(last[order]).argsort(descending=True)[:n_key] + 1
        rows = torch.cat([2 * key - 1, 2 * key[2 * key < n]])
        shuffles.append(_Shuffle(order, basis[rows][:, order.argsort()]))
    return shuffles


def _shuffled_quantities(
    values: Float[Tensor, "steps n d"], components: Float[Tensor, "steps n k"], shuffles: list[_Shuffle]
) -> dict[str, Tensor]:
    """Return the control of the circular quantities with the tokens in random orders."""
    # The variance is the same in every order.
    variance = reduce((values - values.mean(-2, keepdim=True)).square(), "step n d -> step", "sum")
    variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
    samples = []
    for shuffle in shuffles:
        circularity, _ = cyclic.circularity(components[:, shuffle.order])
        power = einsum(shuffle.key_basis, values, "wave n, step n d -> step wave d").square()
        sample = {
            "circularity": circularity[:, :4].mean(-1),
            "component_circularity": circularity,
            "key_frequency_share": reduce(power, "step wave d -> step", "sum") / variance,
        }
        samples.append(sample)
    return controls.shuffled_control(samples)
