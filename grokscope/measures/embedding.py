"""The embedding circle: principal components of W_E over the task's tokens, and their Fourier content."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import fourier
from grokscope.errors import GrokscopeError
from grokscope.pca import align, principal_components
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_MOST_PLANES = 6


def embedding(trajectory: Trajectory, *, n_components: int = 10, n_shuffles: int = 16, seed: int = 0) -> Series:
    """Measure the principal components of W_E over the task's tokens, and how much of a circle they are.

    The rows are the tokens named by the constant `tokens`: those on the task's circle in the circle's order
    (for multiplication and division the powers of the smallest primitive root; zero is left out), or all
    elements if the task has no circle, and then the circular arrays are missing. Arrays over steps:

    - `principal_components` (tokens, k), aligned from step to step (`align`); `explained_variance_ratio` (k);
    - `component_circularity` and `component_frequency` (k) and `circularity`, the mean over the first four
      (Zhong et al. 2023): 1 if each is a pure wave in the circle's order;
    - `frequency_shares` (frequencies): the share of the embedding's variance in each frequency (Nanda et al.
      2023, as norms), and `key_frequency_share`, the sum over the key frequencies;
    - `frequency_planes` (planes, tokens, 2): the tokens in the plane of each of the strongest key frequencies.

    Constants: `tokens`, `frequencies`, `key_frequencies` (norm above a quarter of the largest at the last
    step), `plane_frequencies` (the strongest of them, strongest first), and `n_examples_off_circle`. Controls:
    `…_shuffled` is the same with the tokens in random orders (mean over `n_shuffles`, `…_shuffled_stderr` its
    standard error; the key frequencies are then as many of its own strongest), and `…_initialization` the
    untrained model. Plain PCA mixes the planes of two frequencies of nearly equal variance, which lowers
    circularity without any change in the network: look at `frequency_planes` beside it. Costs one eigen-
    decomposition of an n × n matrix a checkpoint.
    """
    if n_components < 1 or n_shuffles < 2:
        raise GrokscopeError(
            f"n_components: {n_components}, allowed: from 1; n_shuffles: {n_shuffles}, allowed: from 2."
        )
    task = trajectory.task
    tokens = torch.arange(task.n_elements) if task.circle is None else task.circle
    values = trajectory.parameter("embed.W_E")[:, tokens].double()
    components, ratios = principal_components(values, n_components)
    arrays = {
        "principal_components": align(components, ratios),
        "explained_variance_ratio": ratios,
    }
    constants = {"tokens": tokens, "n_examples_off_circle": torch.tensor(task.n_examples_off_circle)}
    if task.circle is not None:
        norms = fourier.fourier_norms(values)
        key = fourier.frequencies(len(tokens))[fourier.key_frequencies(norms[-1])]
        strongest = norms[-1].argsort(descending=True)[: min(_MOST_PLANES, len(key))] + 1
        origin = trajectory.initialization or trajectory.model.initialize(trajectory.config.init_seed)
        untrained = origin["embed.W_E"][None, tokens].double()
        arrays |= _circular(values, components, key)
        planes = [fourier.frequency_plane(values, int(frequency)) for frequency in strongest]
        arrays["frequency_planes"] = (
            torch.stack(planes, 1) if planes else values.new_zeros(len(values), 0, len(tokens), 2)
        )
        arrays |= _shuffled(values, components, len(key), n_shuffles, seed)
        constants |= {
            f"{name}_initialization": array[0]
            for name, array in _circular(untrained, principal_components(untrained, n_components)[0], key).items()
            if name in ("circularity", "component_circularity", "key_frequency_share")
        }
        constants |= {
            "frequencies": fourier.frequencies(len(tokens)),
            "key_frequencies": key,
            "plane_frequencies": strongest,
        }
    return Series(
        "embedding",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def _circular(
    values: Float[Tensor, "steps n d"], components: Float[Tensor, "steps n k"], key: Int[Tensor, " n_key"]
) -> dict[str, Tensor]:
    by_component, frequency = fourier.circularity(components)
    shares = fourier.frequency_shares(values)
    return {
        "circularity": by_component[:, :4].mean(-1),
        "component_circularity": by_component,
        "component_frequency": frequency,
        "frequency_shares": shares,
        "key_frequency_share": shares[:, key - 1].sum(-1),
    }


def _shuffled(
    values: Float[Tensor, "steps n d"],
    components: Float[Tensor, "steps n k"],
    n_key: int,
    n_shuffles: int,
    seed: int,
) -> dict[str, Tensor]:
    """Return the circular quantities with the tokens in random orders: their means and standard errors."""
    generator = torch.Generator().manual_seed(seed)
    samples: dict[str, list[Tensor]] = {}
    for _ in range(n_shuffles):
        order = torch.randperm(values.shape[1], generator=generator)
        key = fourier.fourier_norms(values[-1:, order])[0].argsort(descending=True)[:n_key] + 1
        found = _circular(values[:, order], components[:, order], key)
        for name in ("circularity", "component_circularity", "key_frequency_share"):
            samples.setdefault(name, []).append(found[name])
    shuffled = {}
    for name, drawn in samples.items():
        stacked = torch.stack(drawn)
        shuffled[f"{name}_shuffled"] = stacked.mean(0)
        shuffled[f"{name}_shuffled_stderr"] = stacked.std(0) / n_shuffles**0.5
    return shuffled
