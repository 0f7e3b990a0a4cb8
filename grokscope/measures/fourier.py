"""Fourier spectra of W_E, W_U and the neuron-to-logit map W_L along the circle, and the key frequencies they name."""

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.key_frequencies import key_frequencies, neuron_logits
from grokscope.circuits.pairs import Grid
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.model.transformer import Model
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_LOADED_AT_ONCE = 16


def fourier(trajectory: Trajectory, *, rank_tolerance: float = 0.01, n_shuffles: int = 16, seed: int = 0) -> Series:
    """Measure how few frequencies the weights hold: rows of W_E, columns of W_U, and the neuron-to-logit map W_L.

    All three are functions of the tokens on the task's circle, in its order; W_L = W_out W_U is the last block's
    (`grokscope.key_frequencies.neuron_logits` says how with LayerNorm). With W one of W_E, W_U and W_L, arrays over
    steps:

    - `W_norms` (frequencies): √(|cosine component|² + |sine component|²), the norm over the columns;
    - `W_gini`: the Gini coefficient (Hurley & Rickard 2009) of the norms of the n − 1 Fourier components, cosines and
      sines by themselves (Nanda et al. 2023, section 5.1): 0 if all are alike, towards 1 if few hold everything;
    - `W_n_key_frequencies`: how many norms exceed a quarter of the largest. Untrained, nearly all do;
    - `W_L_singular_values`, in descending order, of W_L less each neuron's mean over the classes, which a softmax
      does not see; those below 1e-7 of the largest are rounding. `W_L_rank`: how many of the largest it takes for
      the rest to hold at most `rank_tolerance` of the sum of squares: about two a key frequency (section 4.1).

    Constants, at the last step: `frequencies`; the key frequencies by each rule, `key_frequencies_embedding` (a),
    `key_frequencies_neuron_logits` (b), `key_frequencies_neurons` (c), by removal, `key_frequencies_removal`, and
    their consensus `key_frequencies` (`grokscope.key_frequencies` defines each); `loss` over all pairs on the circle
    and `loss_without_frequency` (frequencies), which removal compares. Controls: `W_gini_shuffled`, the tokens in
    random orders (mean over `n_shuffles`, `…_shuffled_stderr` its standard error), and `W_gini_initialization`, the
    untrained model. Raise GrokscopeError for a task without a circle and an option out of range. Costs one n × n
    eigenvalue problem a checkpoint.
    """
    if not 0 <= rank_tolerance < 1:
        raise GrokscopeError(f"rank_tolerance: {rank_tolerance}. Allowed: from 0 to below 1.")
    model = trajectory.model
    grid = Grid.of(model, trajectory.task, trajectory.split)
    tokens, names = grid.circle.tokens, [one for one in model.shapes if one.split(".")[-1] in ("W_E", "W_U", "W_out")]
    names = [*names, "ln_final.w"] if "ln_final.w" in model.shapes else names
    orders = controls.random_orders(len(tokens), n_shuffles, seed)
    keys = key_frequencies(grid, trajectory.last.parameters)
    origin = trajectory.untrained
    pieces: dict[str, list[Tensor]] = {}
    for start in range(0, len(trajectory), _LOADED_AT_ONCE):
        part = trajectory[start : start + _LOADED_AT_ONCE]
        parameters = {name: part.parameter(name) for name in names}
        for name, array in _spectra(_maps(model, parameters, tokens), orders, rank_tolerance).items():
            pieces.setdefault(name, []).append(array)
    untrained_maps = _maps(model, {name: origin[name][None] for name in names}, tokens)
    untrained = _spectra(untrained_maps, orders[:0], rank_tolerance)
    constants = keys.constants() | {"loss": keys.loss, "loss_without_frequency": keys.loss_without}
    constants |= controls.untrained_control(
        {name: array[0] for name, array in untrained.items() if name.endswith("_gini")}
    )
    return Series(
        "fourier",
        trajectory.steps,
        {name: torch.cat(parts).numpy() for name, parts in pieces.items()},
        {name: array.numpy() for name, array in constants.items()},
    )


def _maps(
    model: Model, parameters: dict[str, Tensor], tokens: Int[Tensor, " n"]
) -> dict[str, Float[Tensor, "steps n _"]]:
    """Return the three functions of the circle's tokens."""
    W_U = rearrange(parameters["unembed.W_U"].double(), "step d_model token -> step token d_model")
    return {
        "W_E": parameters["embed.W_E"][:, tokens].double(),
        "W_U": W_U[:, tokens],
        "W_L": neuron_logits(model, parameters)[:, tokens],
    }


def _spectra(
    maps: dict[str, Float[Tensor, "steps n _"]], orders: Int[Tensor, "n_orders n"], rank_tolerance: float
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, values in maps.items():
        norms = cyclic.fourier_norms(values)
        found[f"{name}_norms"] = norms
        found[f"{name}_gini"] = cyclic.gini(cyclic.component_norms(values))
        found[f"{name}_n_key_frequencies"] = cyclic.key_frequencies(norms).sum(-1)
        gram = einsum(values, values, "step i d, step j d -> step i j")
        found |= controls.shuffled_control(
            [{f"{name}_gini": cyclic.gini(_component_norms(gram, order))} for order in orders]
        )
    centred = maps["W_L"] - maps["W_L"].mean(-2, keepdim=True)
    gram = einsum(centred, centred, "step i d, step j d -> step i j")
    n_values = min(gram.shape[-1] - 1, centred.shape[-1])
    squares = torch.linalg.eigvalsh(gram).flip(-1)[:, :n_values].clamp_min(0)
    found["W_L_singular_values"] = squares.sqrt()
    left = 1 - squares.cumsum(-1) / squares.sum(-1, keepdim=True).clamp_min(torch.finfo(squares.dtype).tiny)
    # A share of the sum that is rounding is nothing left.
    found["W_L_rank"] = 1 + (left > max(rank_tolerance, 1e-12)).sum(-1)
    return found


def _component_norms(gram: Float[Tensor, "steps n n"], order: Int[Tensor, " n"]) -> Float[Tensor, "steps n_waves"]:
    """Return `fourier.component_norms` of reordered tokens, from their inner products: √(b'Gb) for each wave b."""
    basis = cyclic.fourier_basis(len(order))[1:, order.argsort()]
    return ((basis @ gram) * basis).sum(-1).clamp_min(0).sqrt()
