"""Progress measures of Nanda et al. 2023: restricted and excluded loss, and the cosines that make the logits."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.key_frequencies import key_frequencies, restricted_logits
from grokscope.circuits.pairs import CircleGrid, pair_losses
from grokscope.fourier import cyclic_2d
from grokscope.model.forward import Parameters
from grokscope.model.losses import cross_entropy
from grokscope.series import Series
from grokscope.trajectory import Trajectory


@dataclass(frozen=True)
class _Shuffle:
    """A random order of the circle's tokens: its tokens, the answers in it, and its own strongest frequencies."""

    tokens: Int[Tensor, " n"]
    answers: Int[Tensor, "n n"]
    right: Int[Tensor, "n n"]
    key: Int[Tensor, " n_key"]


def progress(trajectory: Trajectory, *, n_shuffles: int = 4, seed: int = 0) -> Series:
    """Measure how much of the logits is made of the key frequencies' waves, and what the losses are with and without.

    u_k and v_k are the unit functions cos(w_k m) and sin(w_k m) of the pairs (i, j), where m = i ± j is the answer's
    position on the task's circle (`grokscope.waves`). The key frequencies are those that a rule names and removal
    confirms at the last step (`grokscope.key_frequencies`). Only pairs with both operands on the circle take part.
    Losses are a softmax's cross-entropy in nats. Arrays over steps:

    - `restricted_loss`: over all pairs, against the right answers, of logits that keep for the key frequencies only
      their projections on u_k and v_k, and each class's mean (Nanda et al. 2023, section 5.1). It falls as the
      circuit forms, before the test loss does; ln(classes) is a guess. `restricted_to_test_ratio`: over the test
      loss; below 1 where the rest of the logits does harm;
    - `excluded_loss`: over the train pairs, of the logits without those projections. It rises where the network
      stops to memorize; ln(classes) where nothing else is left. `excluded_loss_by_frequency` (key frequencies): the
      same with one of them taken out;
    - `train_loss`, `test_loss`: of the logits as they are;
    - `cosine_coefficients` (frequencies): α_k of the least-squares fit Σ_k α_k cos(w_k(m − l)) to the logits of the
      classes at positions l (section 4.2); `logit_variance_shares` (frequencies): the share of the logits' variance
      that each explains, and `logit_variance_share`, all key frequencies together: 1 if the logits are such cosines
      and nothing else. The variance is about each pair's mean over the classes.

    Constants: `frequencies`; `key_frequencies`; `key_frequencies_embedding`, `…_neuron_logits`, `…_neurons`,
    `…_removal`, what each rule names; `n_examples_off_circle`. Controls: `restricted_loss_shuffled` and
    `logit_variance_share_shuffled` are with the circle's tokens in random orders and as many of each order's own
    strongest frequencies, at least one (mean over `n_shuffles`, `…_shuffled_stderr` its standard error),
    `…_initialization` is the untrained model. Raise GrokscopeError for a task without a circle and for n_shuffles
    below 2. Costs one forward pass over the pairs and as much again a checkpoint.
    """
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)
    orders = controls.random_orders(len(grid.circle), n_shuffles, seed)
    keys = key_frequencies(grid, trajectory.last.parameters)
    shuffles = _shuffles(grid, grid.logits(trajectory.last.parameters), len(keys.consensus), orders)
    rows = [_row(grid, snapshot.parameters, keys.consensus, shuffles) for snapshot in trajectory]
    untrained = _row(grid, trajectory.untrained, keys.consensus, [])
    constants = keys.constants() | {"n_examples_off_circle": torch.tensor(trajectory.task.n_examples_off_circle)}
    controlled = ("restricted_loss", "excluded_loss", "logit_variance_share")
    constants |= controls.untrained_control({name: untrained[name] for name in controlled})
    return Series.of_rows("progress", trajectory.steps, rows, constants)


def _row(
    grid: CircleGrid, parameters: Parameters, key: Int[Tensor, " n_key"], shuffles: list[_Shuffle]
) -> dict[str, Tensor]:
    logits, answers, tokens = grid.logits(parameters), grid.circle.answers, grid.circle.tokens
    losses = pair_losses(logits, grid.labels)
    means = cyclic_2d.answer_means(logits, answers)
    restricted = cross_entropy(restricted_logits(means, key), tokens).mean()
    test_loss = losses[~grid.is_train].mean()

    train_logits, train_answers = logits[grid.is_train], answers[grid.is_train]
    each = cyclic_2d.answer_waves(means, key)
    excluded = [
        cross_entropy(train_logits - wave[train_answers], grid.labels[grid.is_train]).mean()
        for wave in (each.sum(0), *each)
    ]
    # The order of the classes does not matter to it, and picking them out is a copy of everything.
    variance = cyclic_2d.logit_variance(logits if len(tokens) == logits.shape[-1] else logits[..., tokens])
    coefficients = cyclic_2d.cosine_coefficients(means[:, tokens])
    shares = _shares(coefficients, variance, len(tokens))
    row = {
        "train_loss": losses[grid.is_train].mean(),
        "test_loss": test_loss,
        "restricted_loss": restricted,
        "restricted_to_test_ratio": restricted / test_loss.clamp_min(torch.finfo(test_loss.dtype).tiny),
        "excluded_loss": excluded[0],
        "excluded_loss_by_frequency": torch.stack(excluded)[1:],
        "cosine_coefficients": coefficients,
        "logit_variance_shares": shares,
        "logit_variance_share": shares[key - 1].sum(),
    }
    return row | controls.shuffled_control([_shuffled(logits, variance, shuffle) for shuffle in shuffles])


def _shuffles(
    grid: CircleGrid, last: Float[Tensor, "n n classes"], n_key: int, orders: Int[Tensor, "n_shuffles n"]
) -> list[_Shuffle]:
    n = len(grid.circle)
    shuffles = []
    for order in orders:
        position = order.argsort()
        answers = (position[:, None] + grid.circle.sign * position) % n
        tokens = grid.circle.tokens[order]
        coefficients = cyclic_2d.cosine_coefficients(cyclic_2d.answer_means(last, answers)[:, tokens])
        strongest = cyclic_2d.cosine_variances(coefficients, n).argsort(descending=True)[: max(n_key, 1)] + 1
        shuffles.append(_Shuffle(tokens, answers, grid.answer_tokens, strongest))
    return shuffles


def _shuffled(
    logits: Float[Tensor, "n n classes"], variance: Float[Tensor, ""], shuffle: _Shuffle
) -> dict[str, Tensor]:
    means = cyclic_2d.answer_means(logits, shuffle.answers)
    log_probabilities = restricted_logits(means, shuffle.key).log_softmax(-1)
    shares = _shares(cyclic_2d.cosine_coefficients(means[:, shuffle.tokens]), variance, len(shuffle.tokens))
    return {
        "restricted_loss": -log_probabilities[shuffle.answers, shuffle.right].mean(),
        "logit_variance_share": shares[shuffle.key - 1].sum(),
    }


def _shares(
    coefficients: Float[Tensor, " n_frequencies"], variance: Float[Tensor, ""], n: int
) -> Float[Tensor, " n_frequencies"]:
    return cyclic_2d.cosine_variances(coefficients, n) / variance.clamp_min(torch.finfo(variance.dtype).tiny)
