"""Fourier spectra of W_E, W_U and the neuron-to-logit map W_L along the circle, and the key frequencies."""

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.key_frequencies import key_frequencies
from grokscope.circuits.pairs import CircleGrid
from grokscope.fourier import cyclic
from grokscope.measures._chunks import evaluate_in_chunks
from grokscope.measures._declaration import Panel, measure
from grokscope.measures._key_frequency_variables import KEY_FREQUENCY_VARIABLES
from grokscope.measures._ranges import check_ranges
from grokscope.model.families import Model
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_CHECKPOINTS_PER_CHUNK = 16


_VARIABLES = with_companions(
    {
        **{
            f"{matrix}_{name}": variable
            for matrix in ("W_E", "W_U", "W_L")
            for name, variable in {
                "norms": Variable(f"Fourier norms of {matrix}", "weight", ("frequency",)),
                "gini": Variable(f"Gini coefficient of {matrix}"),
                "n_key_frequencies": Variable(f"number of key frequencies of {matrix}"),
            }.items()
        },
        "W_L_singular_values": Variable("singular values of W_L", "weight", ("singular_value",), is_logarithmic=True),
        "W_L_rank": Variable("rank of W_L"),
        "frequencies": Variable("frequency", dims=("frequency",), role="coordinate"),
        "loss": Variable("softmax loss over all pairs on the circle", "nats"),
        "loss_without_frequency": Variable("softmax loss without each frequency", "nats", ("frequency",)),
        **KEY_FREQUENCY_VARIABLES,
    },
    shuffled=("W_E_gini", "W_U_gini", "W_L_gini"),
    initialization=("W_E_gini", "W_U_gini", "W_L_gini"),
)
_MAPS = {"W_E": "embedding", "W_U": "unembedding", "W_L": "neuron_logits"}
"""The matrix of the network behind each map."""
_PANELS = (Panel("gini", "Gini of W_E, W_U and W_L", ("W_E_gini", "W_U_gini", "W_L_gini")),)


@measure(variables=_VARIABLES, panels=_PANELS)
def fourier(trajectory: Trajectory, *, rank_tolerance: float = 0.01, n_shuffles: int = 16, seed: int = 0) -> Series:
    """Compute the Fourier norms of the rows of W_E, the columns of W_U and the neuron-to-logit map W_L = W_out W_U.

    All three are functions of the tokens on the task's circle, in the circle's order. W_L is that of the last block;
    with LayerNorm, see `circuits.key_frequencies.neuron_logits`.

    Args:
        trajectory: The checkpoints to measure. The key frequencies are those of the last one.
        rank_tolerance: The share of W_L's sum of squares that `W_L_rank` may leave out, from 0 to below 1. The
            default is 1%; Nanda et al. report a rest below 0.55% at rank 10.
        n_shuffles: The number of random orders of the control, from 2. The standard error of the control falls as
            1/√n_shuffles.
        seed: The seed of the random orders. All steps share them.

    Returns:
        Series with arrays over the steps. The prefix W is W_E, W_U or W_L.

        - `W_norms` (steps, frequencies), in units of weight: √(|cosine component|² + |sine component|²), each the
          norm over the columns.
        - `W_gini` (steps), from 0 to 1: the Gini coefficient of the norms of the n − 1 Fourier components, with
          cosines and sines apart. It is 0 if all are equal, and near 1 if few hold everything.
        - `W_n_key_frequencies` (steps): the number of norms above a quarter of the largest. In an untrained model,
          nearly all are.
        - `W_L_singular_values` (steps, singular values), in descending order: of W_L minus each neuron's mean over
          the classes, which a softmax does not see. Values below 1e-7 of the largest are rounding.
        - `W_L_rank` (steps): the number of singular values after which the rest has at most `rank_tolerance` of the
          sum of squares. It is about two per key frequency.

        Constants, at the last step: `frequencies`; `key_frequencies`, the consensus; the frequencies that each rule
        names, `key_frequencies_embedding`, `key_frequencies_neuron_logits` and `key_frequencies_neurons`; those that
        removal confirms, `key_frequencies_removal` (see `circuits.key_frequencies`); `loss` over all pairs on the
        circle, and `loss_without_frequency` (frequencies), both in nats.

    Raises:
        GrokscopeError: The task has no circle, or an option is out of range.

    References:
        - Nanda et al. 2023, sections 4.1 and 5.1: the spectra, the rank of W_L and the Gini coefficient.
        - Hurley & Rickard 2009: the Gini coefficient.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, and a shift of all logits.
        - Rescaled ReLU neurons change `W_L_norms` and `W_L_singular_values`.

    Controls:
        - `W_gini_shuffled`: the tokens in random orders. The mean over the orders, with its standard error
          `W_gini_shuffled_stderr`.
        - `W_gini_initialization`: the untrained model.

    Cost:
        - One eigenvalue problem of an n × n matrix per checkpoint, for n tokens on the circle.
    """
    check_ranges(("rank_tolerance", rank_tolerance, 0 <= rank_tolerance < 1, "from 0 to below 1"))
    model = trajectory.model
    grid = CircleGrid.of(model, trajectory.task, trajectory.split_or_none)
    tokens = grid.circle.tokens
    names = dict.fromkeys(name for part in _MAPS.values() for name in model.matrix(part).parameters)
    orders = controls.random_orders(len(tokens), n_shuffles, seed)
    keys = key_frequencies(grid, trajectory.last.parameters)

    def spectra(chunk: Trajectory) -> dict[str, Tensor]:
        parameters = {name: chunk.parameter(name) for name in names}
        return _spectra(_token_maps(model, parameters, tokens), orders, rank_tolerance)

    arrays = evaluate_in_chunks(trajectory, _CHECKPOINTS_PER_CHUNK, spectra)
    untrained_maps = _token_maps(model, {name: trajectory.untrained[name][None] for name in names}, tokens)
    untrained = _spectra(untrained_maps, orders[:0], rank_tolerance)
    ginis = {name: array[0] for name, array in untrained.items() if name.endswith("_gini")}
    constants = {
        **keys.constants(),
        "loss": keys.loss,
        "loss_without_frequency": keys.loss_without,
        **controls.untrained_control(ginis),
    }
    return Series(
        "fourier",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def _token_maps(
    model: Model, parameters: dict[str, Tensor], tokens: Int[Tensor, " n"]
) -> dict[str, Float[Tensor, "steps n _"]]:
    """Return W_E, W_U and W_L as functions of the circle's tokens, in float64."""
    maps = {name: model.matrix(part).read(parameters).double() for name, part in _MAPS.items()}
    maps["W_U"] = rearrange(maps["W_U"], "step d_model token -> step token d_model")
    return {name: values[:, tokens] for name, values in maps.items()}


def _spectra(
    maps: dict[str, Float[Tensor, "steps n _"]], orders: Int[Tensor, "n_orders n"], rank_tolerance: float
) -> dict[str, Tensor]:
    """Return the norms, Gini coefficients and singular values of the maps; no control without orders."""
    arrays: dict[str, Tensor] = {}
    for name, values in maps.items():
        norms = cyclic.fourier_norms(values)
        arrays[f"{name}_norms"] = norms
        arrays[f"{name}_gini"] = cyclic.gini(cyclic.component_norms(values))
        arrays[f"{name}_n_key_frequencies"] = cyclic.key_frequencies(norms).sum(-1)
        gram = einsum(values, values, "step i d, step j d -> step i j")
        samples = [{f"{name}_gini": cyclic.gini(_reordered_component_norms(gram, order))} for order in orders]
        arrays |= controls.shuffled_control(samples)
    centred = maps["W_L"] - maps["W_L"].mean(-2, keepdim=True)
    gram = einsum(centred, centred, "step i d, step j d -> step i j")
    n_values = min(gram.shape[-1] - 1, centred.shape[-1])
    squares = torch.linalg.eigvalsh(gram).flip(-1)[:, :n_values].clamp_min(0)
    arrays["W_L_singular_values"] = squares.sqrt()
    rest = 1 - squares.cumsum(-1) / squares.sum(-1, keepdim=True).clamp_min(torch.finfo(squares.dtype).tiny)
    # A rest below 1e-12 is rounding.
    arrays["W_L_rank"] = 1 + (rest > max(rank_tolerance, 1e-12)).sum(-1)
    return arrays


def _reordered_component_norms(
    gram: Float[Tensor, "steps n n"], order: Int[Tensor, " n"]
) -> Float[Tensor, "steps n_waves"]:
    """Return `cyclic.component_norms` of reordered tokens from their inner products G: √(bᵀGb) for each wave b."""
    basis = cyclic.fourier_basis(len(order))[1:, order.argsort()]
    return ((basis @ gram) * basis).sum(-1).clamp_min(0).sqrt()
