"""Progress measures of Nanda et al. 2023: restricted and excluded loss, and the cosines that make the logits."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.key_frequencies import key_frequencies, restricted_logits
from grokscope.circuits.pairs import CircleGrid, pair_losses
from grokscope.fourier import cyclic_2d
from grokscope.measures._declaration import Panel, measure
from grokscope.measures._key_frequency_variables import KEY_FREQUENCY_VARIABLES
from grokscope.model.forward import Parameters
from grokscope.model.losses import cross_entropy
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions


@dataclass(frozen=True)
class _Shuffle:
    """A random order of the circle's tokens, as if it were the circle's own order."""

    tokens: Int[Tensor, " n"]
    answers: Int[Tensor, "n n"]
    """The position in this order of the answer that the order gives to each pair."""
    answer_tokens: Int[Tensor, "n n"]
    """The token of each pair's correct answer."""
    is_equation: Bool[Tensor, "n n"]
    """Whether the task has an equation with each pair."""
    key: Int[Tensor, " n_key"]
    """The strongest frequencies in this order."""


_VARIABLES = with_companions(
    {
        "restricted_loss": Variable("softmax restricted loss", "nats", is_logarithmic=True),
        "restricted_to_test_ratio": Variable("restricted over test loss (softmax)"),
        "excluded_loss": Variable("softmax excluded loss", "nats", is_logarithmic=True),
        "excluded_loss_by_frequency": Variable(
            "softmax excluded loss by frequency", "nats", ("key_frequency",), is_logarithmic=True
        ),
        "train_loss": Variable("softmax train loss", "nats", is_logarithmic=True),
        "test_loss": Variable("softmax test loss", "nats", is_logarithmic=True),
        "cosine_coefficients": Variable("coefficient of each cosine", "logit", ("frequency",)),
        "logit_variance_shares": Variable("share of the logits' variance in each cosine", dims=("frequency",)),
        "logit_variance_share": Variable("key cosines' share of the logits' variance"),
        "frequencies": Variable("frequency", dims=("frequency",), role="coordinate"),
        "n_examples_off_circle": Variable("number of equations off the circle"),
        **KEY_FREQUENCY_VARIABLES,
    },
    shuffled=("restricted_loss", "logit_variance_share"),
    initialization=("restricted_loss", "excluded_loss", "logit_variance_share"),
)
_PANELS = (
    Panel(
        "losses",
        "softmax loss: restricted, excluded, train and test",
        ("train_loss", "test_loss", "restricted_loss", "excluded_loss"),
    ),
)


@measure(variables=_VARIABLES, panels=_PANELS)
def progress(trajectory: Trajectory, *, n_shuffles: int = 4, seed: int = 0) -> Series:
    """Compute the restricted loss, the excluded loss and the fit Σ_k α_k cos(w_k(m − l)) to the logits.

    m = i ± j is the answer's position on the task's circle for operands at i and j. u_k and v_k are the unit
    functions cos(w_k m) and sin(w_k m) of the pairs (`fourier.cyclic_2d`). The key frequencies are those that a rule
    names and removal confirms at the last step (`circuits.key_frequencies`). Only pairs with both operands on the
    circle take part. Losses are the cross-entropy of a softmax over the task's equations; all else covers all pairs.

    Args:
        trajectory: The checkpoints to measure. The key frequencies are those of the last one.
        n_shuffles: The number of random orders of the control, from 2, because the control has a standard error. The
            default is small to limit the cost.
        seed: The seed of the random orders. All steps share them.

    Returns:
        Series with arrays over the steps. Losses are in nats; ln(classes) is a guess.

        - `restricted_loss` (steps): over all equations, against the correct answers, of logits that keep only their
          projections on u_k and v_k of the key frequencies, and each class's mean. It falls as the circuit forms,
          before the test loss does.
        - `restricted_to_test_ratio` (steps): over the test loss. It is below 1 if the rest of the logits does harm.
        - `excluded_loss` (steps): over the train equations, of the logits without those projections. It rises once
          the network stops memorizing; ln(classes) means that nothing else is left.
        - `excluded_loss_by_frequency` (steps, key frequencies): the same without one key frequency.
        - `train_loss`, `test_loss` (steps): of the unchanged logits. If the training set is unknown, these two, the
          ratio and the excluded losses are absent.
        - `cosine_coefficients` (steps, frequencies), in units of logits: α_k of the least-squares fit to the logits
          of the classes at positions l.
        - `logit_variance_shares` (steps, frequencies), from 0 to 1: the share of the logits' variance that each
          cosine explains. The variance is about each pair's mean over the classes.
        - `logit_variance_share` (steps), from 0 to 1: the sum over the key frequencies; 1 means that the logits are
          these cosines.

        Constants: `frequencies`; `key_frequencies`, the consensus; the frequencies that each rule names,
        `key_frequencies_embedding`, `key_frequencies_neuron_logits` and `key_frequencies_neurons`; those that removal
        confirms, `key_frequencies_removal`; `n_examples_off_circle`.

    Raises:
        GrokscopeError: The task has no circle, or `n_shuffles` is out of range.

    References:
        - Nanda et al. 2023, sections 4.2 (the fit) and 5.1 (the losses). For the restricted loss their notebook adds
          back each class's mean logit.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, rescaled ReLU neurons, a shift of all
          logits.

    Controls:
        - `restricted_loss_shuffled`, `logit_variance_share_shuffled`: the circle's tokens in random orders, with as
          many of each order's own strongest frequencies as key frequencies, at least one. The mean over the orders,
          with its standard error `…_shuffled_stderr`.
        - `…_initialization`: the untrained model.

    Cost:
        - One forward pass over the pairs per checkpoint, and about as much again.
    """
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split_or_none)
    orders = controls.random_orders(len(grid.circle), n_shuffles, seed)
    keys = key_frequencies(grid, trajectory.last.parameters)
    shuffles = _shuffles(grid, grid.logits(trajectory.last.parameters), len(keys.consensus), orders)
    rows = [_row(grid, snapshot.parameters, keys.consensus, shuffles) for snapshot in trajectory]
    untrained = _row(grid, trajectory.untrained, keys.consensus, [])
    controlled = ("restricted_loss", "excluded_loss", "logit_variance_share")
    constants = {
        **keys.constants(),
        "n_examples_off_circle": torch.tensor(trajectory.task.n_examples_off_circle),
        **controls.untrained_control({name: untrained[name] for name in controlled if name in untrained}),
    }
    return Series.of_rows("progress", trajectory.steps, rows, constants)


def _row(
    grid: CircleGrid, parameters: Parameters, key: Int[Tensor, " n_key"], shuffles: list[_Shuffle]
) -> dict[str, Tensor]:
    """Return every quantity of one checkpoint; no control without shuffles."""
    logits, tokens = grid.logits(parameters), grid.circle.tokens
    means = cyclic_2d.answer_means(logits, grid.circle.answers)
    restricted = grid.mean_over_equations(cross_entropy(restricted_logits(means, key), tokens))
    # The order of the classes does not matter here, and selecting them all would copy the logits.
    variance = cyclic_2d.logit_variance(logits if len(tokens) == logits.shape[-1] else logits[..., tokens])
    coefficients = cyclic_2d.cosine_coefficients(means[:, tokens])
    shares = _variance_shares(coefficients, variance, len(tokens))
    row = {
        **(_losses(grid, logits, means, key, restricted) if grid.split else {"restricted_loss": restricted}),
        "cosine_coefficients": coefficients,
        "logit_variance_shares": shares,
        "logit_variance_share": shares[key - 1].sum(),
    }
    return row | controls.shuffled_control([_shuffled_quantities(logits, variance, shuffle) for shuffle in shuffles])


def _losses(
    grid: CircleGrid,
    logits: Float[Tensor, "n n classes"],
    means: Float[Tensor, "n classes"],
    key: Int[Tensor, " n_key"],
    restricted: Float[Tensor, ""],
) -> dict[str, Tensor]:
    """Return the losses, most of which need the split; `means` are each answer's mean logits."""
    losses, is_train = pair_losses(logits, grid.labels), grid.is_train
    test_loss = losses[grid.is_test].mean()
    train_logits, train_answers = logits[is_train], grid.circle.answers[is_train]
    waves = cyclic_2d.answer_waves(means, key)
    excluded = [
        cross_entropy(train_logits - wave[train_answers], grid.labels[is_train]).mean()
        for wave in (waves.sum(0), *waves)
    ]
    return {
        "train_loss": losses[is_train].mean(),
        "test_loss": test_loss,
        "restricted_loss": restricted,
        "restricted_to_test_ratio": restricted / test_loss.clamp_min(torch.finfo(test_loss.dtype).tiny),
        "excluded_loss": excluded[0],
        "excluded_loss_by_frequency": torch.stack(excluded)[1:],
    }


def _shuffles(
    grid: CircleGrid, last: Float[Tensor, "n n classes"], n_key: int, orders: Int[Tensor, "n_shuffles n"]
) -> list[_Shuffle]:
    """Return each random order with its own `n_key` strongest frequencies at the last step, at least one."""
    n = len(grid.circle)
    shuffles = []
    for order in orders:
        position = order.argsort()
        answers = (position[:, None] + grid.circle.sign * position) % n
        tokens = grid.circle.tokens[order]
        coefficients = cyclic_2d.cosine_coefficients(cyclic_2d.answer_means(last, answers)[:, tokens])
        strongest = cyclic_2d.cosine_variances(coefficients, n).argsort(descending=True)[: max(n_key, 1)] + 1
        shuffles.append(_Shuffle(tokens, answers, grid.answer_tokens, grid.is_equation, strongest))
    return shuffles


def _shuffled_quantities(
    logits: Float[Tensor, "n n classes"], variance: Float[Tensor, ""], shuffle: _Shuffle
) -> dict[str, Tensor]:
    """Return the quantities that have a shuffled control, in one random order."""
    means = cyclic_2d.answer_means(logits, shuffle.answers)
    log_probabilities = restricted_logits(means, shuffle.key).log_softmax(-1)
    coefficients = cyclic_2d.cosine_coefficients(means[:, shuffle.tokens])
    shares = _variance_shares(coefficients, variance, len(shuffle.tokens))
    losses = -log_probabilities[shuffle.answers, shuffle.answer_tokens]
    return {
        "restricted_loss": losses[shuffle.is_equation].mean(),
        "logit_variance_share": shares[shuffle.key - 1].sum(),
    }


def _variance_shares(
    coefficients: Float[Tensor, " n_frequencies"], variance: Float[Tensor, ""], n: int
) -> Float[Tensor, " n_frequencies"]:
    """Return the share of the logits' variance that each cosine explains."""
    return cyclic_2d.cosine_variances(coefficients, n) / variance.clamp_min(torch.finfo(variance.dtype).tiny)
