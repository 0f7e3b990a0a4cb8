"""Neurons of a network that composes group elements: the share of their variance in each representation."""

import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.fourier.group import IsotypicBasis
from grokscope.model.families import Model
from grokscope.model.forward import Parameters
from grokscope.tasks import Task
from grokscope.tasks.group_pairs import Composition

NEURON_THRESHOLD = 0.85
"""The least share of a neuron's variance in the block of a representation that it belongs to (Nanda et al. 2023)."""
_ACTIVATIONS_PER_BATCH = 2**24
_PAIRS_PER_BATCH = 2**13


class GroupNeurons:
    """The neurons of the last MLP at the answer's position, over all pairs of elements.

    The block of a representation ρ is (1 ⊕ V_ρ) ⊗ (1 ⊕ V_ρ) without the constant. It contains the products of a
    function of a and a function of b.
    """

    def __init__(self, model: Model, task: Task, composition: Composition, isotypic: IsotypicBasis):
        self.model, self.isotypic = model, isotypic
        self.batches = model.equations(composition.inputs.flatten(0, 1)).parts(_PAIRS_PER_BATCH)
        self.product = torch.from_numpy(composition.group.table).flatten()
        model.require("neurons", model.neurons)
        self.hook_name = model.neurons[-1]

    def shares(self, parameters: Parameters) -> dict[str, Tensor]:
        """Return the shares of the neurons' variance in each of the k non-trivial representations.

        Args:
            parameters: All parameters of the model.

        Returns:
            neuron_shares (k): The share in the block of a representation.
            neuron_operand_shares (k): The part of it that depends on one operand alone.
            neuron_product_shares (k): The part of it that depends on a·b alone.
            n_neurons_of_representation (k): The number of neurons with a share of at least `NEURON_THRESHOLD`.
        """
        n, activations = len(self.isotypic.basis), self._activations(parameters)
        operand_powers, joint_powers, product_powers, variances = [], [], [], []
        for batch in activations.split(max(1, _ACTIVATIONS_PER_BATCH // n**2), dim=-1):
            neurons = batch.double()
            neurons = neurons - neurons.mean(0)
            of_operand, of_both = self.isotypic.pair_powers(neurons.unflatten(0, (n, n)))
            operand_powers.append(of_operand)
            joint_powers.append(of_both)
            product_means = neurons.new_zeros(n, neurons.shape[1]).index_add(0, self.product, neurons) / n
            # Each product has n pairs with the same mean.
            product_powers.append(n * self.isotypic.powers(product_means))
            variances.append(neurons.square().sum(0))
        operand, joint, product, variance = (
            torch.cat(parts, -1) for parts in (operand_powers, joint_powers, product_powers, variances)
        )
        tiny, block = torch.finfo(torch.float64).tiny, operand + joint
        total = variance.sum().clamp_min(tiny)
        return {
            "neuron_shares": block.sum(-1) / total,
            "neuron_operand_shares": operand.sum(-1) / total,
            "neuron_product_shares": product.sum(-1) / total,
            "n_neurons_of_representation": (block / variance.clamp_min(tiny) >= NEURON_THRESHOLD).sum(-1),
        }

    @torch.no_grad()
    def _activations(self, parameters: Parameters) -> Float[Tensor, "pairs d_mlp"]:
        """Return the activations of all pairs, in the order of the group's table."""
        activations: list[Tensor] = []

        def record(name: str, value: Tensor) -> Tensor:
            if name == self.hook_name:
                activations.append(value[:, -1])
            return value

        for batch in self.batches:
            self.model.logits(parameters, batch, hook=record)
        return torch.cat(activations)
