"""The frequencies that a network computes with: three published rules, each confirmed by removal from the logits.

The rules name different sets. An embedding keeps frequencies that the rest of the network no longer reads. A few
neurons can cluster at a frequency that the logits lack. A key frequency is therefore one that a rule names and whose
removal from the logits raises the loss.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.circuits.pairs import CircleGrid
from grokscope.fourier import cyclic, cyclic_2d
from grokscope.model.families import Model
from grokscope.model.forward import Parameters
from grokscope.tasks.circle import Circle

CLUSTER_THRESHOLD = 0.85
"""The least share of a neuron's energy in the block of a frequency for the neuron to belong to that frequency.

The value is that of Nanda et al. 2023.
"""
LOSS_RISE = 1.25
"""The least factor by which the removal of a key frequency from the logits raises the loss.

In runs that generalised, frequencies in use raised the loss by factors from 20 to 10⁷; all others by less than 1.1.
"""


@dataclass(frozen=True, eq=False)
class KeyFrequencies:
    """The frequencies 1 … n // 2 that each rule names at one checkpoint."""

    embedding: Bool[Tensor, " n_frequencies"]
    """Rule (a): whether the norm in W_E exceeds a quarter of the largest norm."""
    neuron_logits: Bool[Tensor, " n_frequencies"]
    """Rule (b): whether the norm in the neuron-to-logit map W_L exceeds a quarter of the largest norm."""
    neurons: Bool[Tensor, " n_frequencies"]
    """Rule (c): whether a neuron of any block has a share of at least `CLUSTER_THRESHOLD` in the frequency."""
    loss: Float[Tensor, ""]
    """The loss over the task's equations on the circle, with the correct answers."""
    loss_without: Float[Tensor, " n_frequencies"]
    """The same loss with one frequency removed from the logits."""

    @property
    def removal(self) -> Bool[Tensor, " n_frequencies"]:
        """Whether the removal of each frequency raises the loss by a factor above `LOSS_RISE`."""
        return self.loss_without > LOSS_RISE * self.loss

    @property
    def consensus(self) -> Int[Tensor, " n_key"]:
        """The key frequencies, ascending: those that at least one rule names and that removal confirms."""
        confirmed = (self.embedding | self.neuron_logits | self.neurons) & self.removal
        return confirmed.nonzero()[:, 0] + 1

    def constants(self) -> dict[str, Tensor]:
        """Return the constants of a series that uses these frequencies: the consensus and the choice of each rule."""
        rules = ("embedding", "neuron_logits", "neurons", "removal")
        return {
            "frequencies": torch.arange(1, len(self.loss_without) + 1),
            "key_frequencies": self.consensus,
            **{f"key_frequencies_{rule}": getattr(self, rule).nonzero()[:, 0] + 1 for rule in rules},
        }


def key_frequencies(grid: CircleGrid, parameters: Parameters) -> KeyFrequencies:
    """Apply all rules to one checkpoint.

    The cost is two forward passes over all pairs and one cross-entropy over all pairs for each frequency.

    Args:
        grid: The model on all pairs of the circle.
        parameters: The parameters of the checkpoint.

    Raises:
        LacksPartError: The network lacks an embedding, neurons, or a linear map from neurons to logits.
    """
    neurons, _ = grid.activations(parameters)
    shares = [cyclic_2d.block_shares(cyclic_2d.pair_blocks(post), post) for post in neurons]
    logits = grid.logits(parameters)
    W_E, W_L = (grid.model.matrix(part).read(parameters).double() for part in ("embedding", "neuron_logits"))
    return KeyFrequencies(
        cyclic.key_frequencies(cyclic.fourier_norms(W_E[grid.circle.tokens])),
        cyclic.key_frequencies(cyclic.fourier_norms(W_L[grid.circle.tokens])),
        torch.stack([(share >= CLUSTER_THRESHOLD).any(-1) for share in shares]).any(0),
        grid.mean_loss(logits),
        losses_without_frequency(grid, logits),
    )


def losses_without_frequency(
    grid: CircleGrid, logits: Float[Tensor, "n n classes"]
) -> Float[Tensor, " n_frequencies"]:
    """Return, for each frequency k, the loss of the logits without their projections on u_k and v_k.

    `fourier.cyclic_2d` defines the unit waves u_k and v_k of the answer.

    Args:
        grid: The model on all pairs of the circle.
        logits: Its logits, from `CircleGrid.logits`.

    Returns:
        The mean cross-entropy in nats over the task's equations, with the correct answers.
    """
    answers = grid.circle.answers
    means = cyclic_2d.answer_means(logits, answers)
    losses = []
    for k in cyclic.frequencies(len(answers)):
        (wave,) = cyclic_2d.answer_waves(means, k[None])
        losses.append(grid.mean_loss(logits - wave[answers]))
    return torch.stack(losses)


def restricted_logits(means: Float[Tensor, "n classes"], key: Int[Tensor, " n_key"]) -> Float[Tensor, "n classes"]:
    """Return logits with only the projections on u_k and v_k of the key frequencies, plus the mean of each class.

    They depend on the answer alone.

    Args:
        means: The mean logits of each answer, from `fourier.cyclic_2d.answer_means`.
        key: The key frequencies.

    Returns:
        The restricted logits for each answer.

    References:
        Nanda et al. 2023, section 5.1. The mean follows their notebook, which adds back each class's mean logit.
    """
    return means.mean(0) + cyclic_2d.answer_waves(means, key).sum(0)


def with_restricted_embedding(
    model: Model, parameters: Parameters, circle: Circle, frequencies: Int[Tensor, " n_frequencies"]
) -> Parameters:
    """Return the parameters with only these frequencies, and the mean, in the embedding of the tokens on the circle.

    Raises:
        LacksPartError: The network has no embedding.
    """
    embedding = model.matrix("embedding")
    assert embedding.write is not None
    return embedding.write(parameters, restricted_embedding(embedding.read(parameters), circle, frequencies))


def restricted_embedding(
    W_E: Float[Tensor, "d_vocab d_model"], circle: Circle, frequencies: Int[Tensor, " n_frequencies"]
) -> Float[Tensor, "d_vocab d_model"]:
    """Return a copy of W_E in which the rows on the circle have only these frequencies and their mean.

    The rows of other tokens do not change. The projection is computed in float64.

    Args:
        W_E: The embedding.
        circle: The task's circle.
        frequencies: The frequencies to keep, from 1 to n // 2.
    """
    restricted = W_E.clone()
    restricted[circle.tokens] = cyclic.keep_frequencies(W_E[circle.tokens].double(), frequencies).to(W_E)
    return restricted
