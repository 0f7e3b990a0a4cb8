"""Which frequencies a network computes with: three rules side by side, and the removal of each as the judge.

The rules in use name different sets: an embedding keeps frequencies that nothing reads any more, and a few neurons
may cluster at one that the logits lack. So each frequency is also taken out of the logits, and counts where a rule
names it and the loss notices.
"""

from dataclasses import dataclass

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.circuits.pairs import Grid, pair_losses
from grokscope.fourier import cyclic, cyclic_2d
from grokscope.model.forward import Parameters
from grokscope.model.transformer import Model

CLUSTERED = 0.85
"""The least share of a neuron's energy in one frequency's block with which it belongs there (Nanda et al. 2023)."""
RISE = 1.25
"""The factor by which the loss must grow when a key frequency is taken out of the logits. In runs that generalised,
the frequencies that are used give factors of 20 to 10⁷, all others below 1.1."""


@dataclass(frozen=True, eq=False)
class KeyFrequencies:
    """Which frequencies 1 … n // 2 each rule names at one checkpoint."""

    embedding: Bool[Tensor, " n_frequencies"]
    """(a) Those whose norm in W_E exceeds a quarter of the largest."""
    neuron_logits: Bool[Tensor, " n_frequencies"]
    """(b) The same in the neuron-to-logit map W_L."""
    neurons: Bool[Tensor, " n_frequencies"]
    """(c) Those that hold a share of at least `CLUSTERED` of some neuron, in any block."""
    loss: Float[Tensor, ""]
    """The loss over all pairs of the circle, with the right answers."""
    loss_without: Float[Tensor, " n_frequencies"]
    """The same loss with one frequency taken out of the logits."""

    @property
    def removal(self) -> Bool[Tensor, " n_frequencies"]:
        """Those whose removal raises the loss more than `RISE` times."""
        return self.loss_without > RISE * self.loss

    @property
    def consensus(self) -> Int[Tensor, " n_key"]:
        """The frequencies that a rule names and removal confirms, increasing: the key frequencies."""
        confirmed = (self.embedding | self.neuron_logits | self.neurons) & self.removal
        return confirmed.nonzero()[:, 0] + 1

    def constants(self) -> dict[str, Tensor]:
        """Return what every series that depends on them says: the consensus and each rule's own frequencies."""
        named = ("embedding", "neuron_logits", "neurons", "removal")
        return {
            "frequencies": torch.arange(1, len(self.loss_without) + 1),
            "key_frequencies": self.consensus,
            **{f"key_frequencies_{rule}": getattr(self, rule).nonzero()[:, 0] + 1 for rule in named},
        }


def key_frequencies(grid: Grid, parameters: Parameters) -> KeyFrequencies:
    """Return the frequencies that each rule names at a checkpoint; costs one cross-entropy a frequency."""
    neurons, _ = grid.activations(parameters)
    shares = [cyclic_2d.block_shares(cyclic_2d.pair_blocks(one), one) for one in neurons]
    logits = grid.logits(parameters)
    return KeyFrequencies(
        cyclic.key_frequencies(cyclic.fourier_norms(parameters["embed.W_E"][grid.circle.tokens].double())),
        cyclic.key_frequencies(cyclic.fourier_norms(neuron_logits(grid.model, parameters)[grid.circle.tokens])),
        torch.stack([(one >= CLUSTERED).any(-1) for one in shares]).any(0),
        pair_losses(logits, grid.right).mean(),
        losses_without(grid, logits),
    )


def neuron_logits(model: Model, parameters: Parameters) -> Float[Tensor, "*steps classes d_mlp"]:
    """Return W_L = W_out W_U of the last block, transposed: what each neuron adds to each logit, in float64.

    Nanda et al. 2023, section 4.1. With LayerNorm before the unembedding it is W_out (1 − 11ᵀ/d_model) diag(w) W_U,
    which is what a neuron adds up to each example's own scale.
    """
    c = model.config
    W_out, W_U = (parameters[name].double() for name in (f"blocks.{c.n_layers - 1}.mlp.W_out", "unembed.W_U"))
    if c.normalization_type:
        W_out = W_out - reduce(W_out, "... neuron d_model -> ... neuron 1", "mean")
        W_U = parameters["ln_final.w"].double()[..., None] * W_U
    return (W_out @ W_U).mT


def losses_without(grid: Grid, logits: Float[Tensor, "n n classes"]) -> Float[Tensor, " n_frequencies"]:
    """Return the loss over all pairs with each frequency's projections on u_k and v_k taken out of the logits."""
    answers = grid.circle.answers
    means = cyclic_2d.answer_means(logits, answers)
    found = []
    for k in cyclic.frequencies(len(answers)):
        (wave,) = cyclic_2d.answer_waves(means, k[None])
        found.append(pair_losses(logits - wave[answers], grid.right).mean())
    return torch.stack(found)


def restricted_logits(means: Float[Tensor, "n classes"], key: Int[Tensor, " n_key"]) -> Float[Tensor, "n classes"]:
    """Return logits that keep the projections on u_k and v_k of the key frequencies, and each class's mean.

    They depend on the answer alone, and are given for each answer. `means` are the logits' `waves.answer_means`.
    (Nanda et al. 2023, section 5.1; for the mean their notebook adds back each class's mean logit.)
    """
    return means.mean(0) + cyclic_2d.answer_waves(means, key).sum(0)
