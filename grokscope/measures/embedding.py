"""The embedding circle: principal components of W_E over the task's tokens, and their Fourier content."""

from dataclasses import dataclass

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.geometry import align, effective_dimension, participation_ratio, principal_components
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.measures._declaration import measure
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_MOST_PLANES = 6
_LOADED_AT_ONCE = 32
_CONTROLLED = ("circularity", "component_circularity", "key_frequency_share", "inverse_participation_ratio")


@dataclass(frozen=True)
class _Shuffle:
    """A random order of the tokens, and the waves of its own strongest frequencies over the tokens as they were."""

    order: Int[Tensor, " n"]
    key_basis: Float[Tensor, "n_waves n"]


@measure(version=2)
def embedding(trajectory: Trajectory, *, n_components: int = 10, n_shuffles: int = 16, seed: int = 0) -> Series:
    """Measure the principal components of W_E over the task's tokens, and how much of a circle they are.

    The rows are the tokens named by the constant `tokens`: those on the task's circle in the circle's order
    (for multiplication and division the powers of the smallest primitive root; zero is left out), or all
    elements if the task has no circle, and then the circular arrays are missing. Arrays over steps:

    - `principal_components` (tokens, k), aligned from step to step (`align`); `explained_variance_ratio` (k);
    - `effective_dimension` and `participation_ratio`, exp(entropy) and 1/Σ λ² of all components' explained variance
      ratios λ (Liu et al. 2022): how many directions the variance is spread over, two a circle of equal radius;
    - `component_circularity` and `component_frequency` (k) and `circularity`, the mean over the first four
      (Zhong et al. 2023): 1 if each is a pure wave in the circle's order;
    - `frequency_shares` (frequencies): the share of the embedding's variance in each frequency (Nanda et al.
      2023, as norms), and `key_frequency_share`, the sum over the key frequencies;
    - `inverse_participation_ratio`, Σ share² over the frequencies (Doshi et al. 2023, there of each neuron's
      weights): 1 for a single frequency, 1/(number of frequencies) for a flat spectrum;
    - `frequency_planes` (planes, tokens, 2): the tokens in the plane of each of the strongest key frequencies.

    Constants: `tokens`, `frequencies`, `key_frequencies` (norm above a quarter of the largest at the last
    step), `plane_frequencies` (the strongest of them, strongest first), and `n_examples_off_circle`. Controls:
    `…_shuffled` is the same with the tokens in random orders (mean over `n_shuffles`, `…_shuffled_stderr` its
    standard error; the key frequencies are then as many of its own strongest), and `…_initialization` the
    untrained model, which is the only control of `inverse_participation_ratio`. Plain PCA mixes the planes of two
    frequencies of nearly equal variance, which lowers circularity without any change in the network: look at
    `frequency_planes` beside it. Costs one eigendecomposition of an n × n matrix a checkpoint.
    """
    if n_components < 1:
        raise GrokscopeError(f"n_components: {n_components}. Allowed: from 1.")
    task = trajectory.task
    tokens = torch.arange(task.n_elements) if task.circle is None else task.circle
    orders = controls.random_orders(len(tokens), n_shuffles, seed)
    constants = {"tokens": tokens, "n_examples_off_circle": torch.tensor(task.n_examples_off_circle)}
    key = strongest = torch.empty(0, dtype=torch.int64)
    shuffles: list[_Shuffle] = []
    if task.circle is not None:
        (last,) = _values(trajectory[-1:], tokens)
        norms = cyclic.fourier_norms(last)
        key = cyclic.frequencies(len(tokens))[cyclic.key_frequencies(norms)]
        strongest = norms.argsort(descending=True)[: min(_MOST_PLANES, len(key))] + 1
        shuffles = _shuffles(last, len(key), orders)
        untrained = trajectory.untrained["embed.W_E"][None, tokens].double()
        circular = _circular(untrained, principal_components(untrained, n_components)[0], key)
        constants |= controls.untrained_control({name: circular[name][0] for name in _CONTROLLED})
        constants |= {
            "frequencies": cyclic.frequencies(len(tokens)),
            "key_frequencies": key,
            "plane_frequencies": strongest,
        }
    pieces: dict[str, list[Tensor]] = {}
    # Piece by piece: all steps of a long run at once would take gigabytes.
    for start in range(0, len(trajectory), _LOADED_AT_ONCE):
        values = _values(trajectory[start : start + _LOADED_AT_ONCE], tokens)
        components, ratios = principal_components(values, len(tokens))
        piece = {
            "effective_dimension": effective_dimension(ratios),
            "participation_ratio": participation_ratio(ratios),
        }
        components, ratios = components[..., :n_components], ratios[:, :n_components]
        piece |= {"principal_components": components, "explained_variance_ratio": ratios}
        if task.circle is not None:
            piece |= _circular(values, components, key)
            planes = [cyclic.frequency_plane(values, int(frequency)) for frequency in strongest]
            piece["frequency_planes"] = (
                torch.stack(planes, 1) if planes else values.new_zeros(len(values), 0, len(tokens), 2)
            )
            piece |= _shuffled(values, components, shuffles)
        for name, array in piece.items():
            pieces.setdefault(name, []).append(array)
    arrays = {name: torch.cat(parts) for name, parts in pieces.items()}
    arrays["principal_components"] = align(arrays["principal_components"], arrays["explained_variance_ratio"])
    return Series(
        "embedding",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def _values(trajectory: Trajectory, tokens: Int[Tensor, " n"]) -> Float[Tensor, "steps n d"]:
    return trajectory.parameter("embed.W_E")[:, tokens].double()


def _circular(
    values: Float[Tensor, "steps n d"], components: Float[Tensor, "steps n k"], key: Int[Tensor, " n_key"]
) -> dict[str, Tensor]:
    by_component, frequency = cyclic.circularity(components)
    shares = cyclic.frequency_shares(values)
    return {
        "circularity": by_component[:, :4].mean(-1),
        "component_circularity": by_component,
        "component_frequency": frequency,
        "frequency_shares": shares,
        "key_frequency_share": shares[:, key - 1].sum(-1),
        "inverse_participation_ratio": cyclic.inverse_participation_ratio(shares),
    }


def _shuffles(last: Float[Tensor, "n d"], n_key: int, orders: Int[Tensor, "n_shuffles n"]) -> list[_Shuffle]:
    """Return random orders of the tokens, each with the Fourier basis of its own key frequencies at the last step.

    A basis' columns are in the tokens' own order, so that it is small and nothing large is reordered.
    """
    n = len(last)
    basis = cyclic.fourier_basis(n)
    shuffles = []
    for order in orders:
        key = cyclic.fourier_norms(last[order]).argsort(descending=True)[:n_key] + 1
        rows = torch.cat([2 * key - 1, 2 * key[2 * key < n]])
        shuffles.append(_Shuffle(order, basis[rows][:, order.argsort()]))
    return shuffles


def _shuffled(
    values: Float[Tensor, "steps n d"], components: Float[Tensor, "steps n k"], shuffles: list[_Shuffle]
) -> dict[str, Tensor]:
    """Return the circular quantities with the tokens in random orders: their means and standard errors."""
    samples = []
    # The variance, which the shares are of, is the same in every order.
    variance = reduce((values - values.mean(-2, keepdim=True)).square(), "step n d -> step", "sum")
    for shuffle in shuffles:
        by_component, _ = cyclic.circularity(components[:, shuffle.order])
        power = einsum(shuffle.key_basis, values, "wave n, step n d -> step wave d").square()
        samples.append(
            {
                "circularity": by_component[:, :4].mean(-1),
                "component_circularity": by_component,
                "key_frequency_share": reduce(power, "step wave d -> step", "sum")
                / variance.clamp_min(torch.finfo(variance.dtype).tiny),
            }
        )
    return controls.shuffled_control(samples)
