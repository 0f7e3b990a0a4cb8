"""Composition in a group by its irreducible representations, and by cosets (Chughtai et al. 2023)."""

from collections.abc import Iterable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.algebra import subgroups
from grokscope.algebra.groups import Group
from grokscope.algebra.irreps import irreducible_representations
from grokscope.circuits import controls
from grokscope.circuits.geometry import silhouettes
from grokscope.circuits.pairs import GroupLogits, LogitBatches
from grokscope.errors import GrokscopeError
from grokscope.fourier.group import Characters, IsotypicBasis
from grokscope.measures._declaration import measure
from grokscope.model.forward import Parameters
from grokscope.model.losses import cross_entropy
from grokscope.series import Series
from grokscope.tasks.composition import Composition, as_composition
from grokscope.trajectory import Trajectory

KEY_SIMILARITY = 1 / 4
"""A representation is key if its logit similarity exceeds this part of the largest one."""
ONE_REPRESENTATION = 0.85
"""A neuron is a representation's if so much of its variance lies in that one's block (Nanda et al. 2023)."""
LARGEST_WITH_COSETS = 120
_NUMBERS_AT_ONCE = 2**24
_PAIRS_AT_ONCE = 2**13
_LOADED_AT_ONCE = 16


@measure(n_checkpoints=48)
def representations(trajectory: Trajectory, *, n_shuffles: int = 8, seed: int = 0) -> Series:
    """Measure which irreducible representations ρ of its group a network composes the elements with.

    The group is the task's, if the answer is a·b in it; a task on a circle of n points has C_n, whose representations
    are the Fourier frequencies in their order (subtraction and division: the second operand is read as its inverse;
    zero, which lies on no circle, is left out of pairs, embeddings and answers). The representations are the real
    ones (`representations.irreducible`), k of them, the trivial one left out: it is of constants, which have no
    variance, and which softmax does not see. Arrays over steps:

    - `embedding_shares`, `unembedding_shares` (k): the share of the variance of W_E's rows, and of W_U's columns, in
      each ρ's isotypic subspace, the span of ρ's matrix entries (Chughtai et al. 2023, section 5.2); they sum to 1;
    - `neuron_shares` (k): of the variance of the last MLP's activations at the answer over all pairs, the share in
      ρ's block, the products of functions of a and of b in 1 ⊕ V_ρ; of it `neuron_operand_shares`, which depends on
      one operand alone, and `neuron_product_shares`, which depends on a·b alone, the entries of ρ(a·b) (their "hidden
      representation"); `n_neurons_of_representation` (k): neurons with 85% of their own variance in the block;
    - `logit_similarity` (k): the cosine between the logits, each pair's mean over the answers taken off, and
      Tr ρ(a)ρ(b)ρ(c⁻¹), as vectors over all (a, b, c) (section 5.1; their code averages each pair's own cosine);
    - `logit_shares` (k): the share of those logits' square in V_ρ(a·b) ⊗ V_ρ(c), of which the character is one
      direction; `logit_product_share`, the share that depends on a·b and c, and not on c alone;
      `logit_variance_explained`, the share in the key characters together, Σ similarity²;
    - `restricted_loss`: the loss over all pairs, with their right answers, of the logits' projection on the key
      characters, to which each answer's mean logit over all pairs is added (as Nanda et al. 2023 do);
      `excluded_loss`: the loss on the pairs trained on, with the answers trained on, of the logits without that
      projection, and `excluded_loss_by_representation` (key) without one character; `loss` and `train_loss`, of the
      whole logits. (Chughtai et al.'s code removes representations from the embeddings, and evaluates all pairs.)
    - `embedding_left_silhouette`, `embedding_right_silhouette`, `unembedding_left_silhouette` and
      `unembedding_right_silhouette` (classes): the mean silhouette of W_E's rows or W_U's columns cut into the left
      cosets xH, or right ones Hx, of a subgroup, the largest over its conjugates, for every class of subgroups but
      the trivial one and the whole group (Stander et al. 2024 read such networks by cosets). Missing beyond 120
      elements or 200 classes, and where there is no such subgroup.

    A representation is key if its logit similarity at the last step exceeds a quarter of the largest. In an untrained
    model all are small and many may pass: read them with `logit_variance_explained`.

    Constants: `tokens`; `representations`, their names (`Series.words`), `dimensions` over the real numbers and
    `commutants`, 1, 2 or 4, their type; `key_representations`, numbers from 0; `share_chance`, `neuron_share_chance`:
    the dimension of subspace or block among all; `subgroups` (names, by generators), `subgroup_orders`,
    `n_conjugates`, `subgroup_elements` (classes, n; one of each class). Controls: `…_shuffled`, with the elements in
    random orders (mean over `n_shuffles`, `…_shuffled_stderr`), and `…_initialization`, the untrained model. Raise
    GrokscopeError for a task that is no composition. n³ logits and n² times all neurons' activations are gone through
    a checkpoint, in parts: one to two seconds for S5, and for S6, of 373 million logits, many minutes.
    """
    composition = as_composition(trajectory.task)
    orders = controls.random_orders(len(composition), n_shuffles, seed)
    every = irreducible_representations(composition.group)
    characters, isotypic = Characters(composition.group, every[1:]), IsotypicBasis.of(every)
    pairs = GroupLogits(trajectory.model, trajectory.task, trajectory.split, composition)
    neurons = _Neurons(trajectory, composition, isotypic)
    geometry = _Geometry(composition, isotypic, orders)
    similarity = _logits(pairs.batches(trajectory.last.parameters), pairs, characters, isotypic, orders)[
        "logit_similarity"
    ]
    key = torch.nonzero(similarity > KEY_SIMILARITY * similarity.amax().clamp_min(0))[:, 0]

    def measured(parameters: Iterable[Parameters]) -> dict[str, Tensor]:
        rows = []
        for one in parameters:
            reading = pairs.batches(one)
            found = _logits(reading, pairs, characters, isotypic, orders)
            rows.append(found | _losses(reading, pairs, characters, found, key) | neurons.measure(one))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    pieces = []
    for start in range(0, len(trajectory), _LOADED_AT_ONCE):
        piece = trajectory[start : start + _LOADED_AT_ONCE]
        W_E, W_U = (piece.parameter(name) for name in ("embed.W_E", "unembed.W_U"))
        pieces.append(measured(one.parameters for one in piece) | geometry.measure(W_E, W_U))
    origin = trajectory.untrained
    untrained = measured([origin]) | geometry.measure(origin["embed.W_E"][None], origin["unembed.W_U"][None])
    dimensions = torch.tensor([one.isotypic_dimension for one in every[1:]])
    n = len(composition)
    constants = {
        "tokens": composition.tokens,
        "representations": np.array([one.name for one in every[1:]], np.str_),
        "dimensions": torch.tensor([one.dimension for one in every[1:]]),
        "commutants": torch.tensor([one.commutant for one in every[1:]]),
        "share_chance": dimensions / (n - 1.0),
        "neuron_share_chance": ((1.0 + dimensions) ** 2 - 1) / (n**2 - 1),
        "key_representations": key,
        **geometry.constants,
        **controls.untrained_control({name: array[0] for name, array in untrained.items()}),
    }
    return Series(
        "representations",
        trajectory.steps,
        {name: torch.cat([piece[name] for piece in pieces]).numpy() for name in pieces[0]},
        {name: np.asarray(array) for name, array in constants.items()},
    )


def _logits(
    reading: LogitBatches,
    pairs: GroupLogits,
    characters: Characters,
    isotypic: IsotypicBasis,
    orders: Int[Tensor, "n_shuffles n"],
) -> dict[str, Tensor]:
    """Return what the logits have of each representation."""
    by_product, shuffled, mean_square = pairs.product_means(reading, orders)
    samples = [
        {"logit_similarity": characters.similarity(characters.coefficients(means), mean_square)} for means in shuffled
    ]
    # Of the n³ logits' square; each product has n pairs.
    square = (mean_square * len(by_product) ** 2).clamp_min(torch.finfo(torch.float64).tiny)
    return {
        "logit_similarity": characters.similarity(characters.coefficients(by_product), mean_square),
        **controls.shuffled_control(samples),
        "logit_shares": isotypic.pair_powers(by_product[..., None])[1][:, 0] / square,
        "logit_product_share": (by_product - by_product.mean(0)).square().sum() / square,
        "by_product": by_product,
    }


def _losses(
    reading: LogitBatches, pairs: GroupLogits, characters: Characters, found: dict[str, Tensor], key: Int[Tensor, " key"]
) -> dict[str, Tensor]:
    """Return the losses with the key characters alone, and without them; `found` is taken from `_logits`."""
    by_product = found.pop("by_product")
    coefficients = characters.coefficients(by_product)
    kept = [torch.zeros_like(coefficients).index_copy(0, one, coefficients[one]) for one in (key, *key[:, None])]
    tables = torch.stack([characters.logits(one) for one in kept])
    # Every product has as many pairs, and the restricted logits depend on nothing else.
    restricted = cross_entropy(tables[0] + by_product.mean(0), torch.arange(len(by_product))).mean()
    loss, train_loss, excluded = pairs.losses(reading, tables)
    return {
        "logit_variance_explained": found["logit_similarity"][key].square().sum(),
        "loss": loss,
        "train_loss": train_loss,
        "restricted_loss": restricted,
        "excluded_loss": excluded[0],
        "excluded_loss_by_representation": excluded[1:],
    }


class _Neurons:
    """The last MLP's activations at the answer, over all pairs of elements."""

    def __init__(self, trajectory: Trajectory, composition: Composition, isotypic: IsotypicBasis):
        self.model, self.isotypic = trajectory.model, isotypic
        equations = self.model.equations(trajectory.task.inputs[composition.examples.flatten()])
        self.parts = equations.parts(_PAIRS_AT_ONCE)
        self.product = torch.from_numpy(composition.group.table).flatten()
        self.last = f"blocks.{trajectory.config.model.n_layers - 1}.mlp.hook_post"

    def measure(self, parameters: Parameters) -> dict[str, Tensor]:
        """Return how the neurons' variance lies in the representations."""
        n, neurons = len(self.isotypic.basis), self._activations(parameters)
        operand, both, product, variance = [], [], [], []
        for some in neurons.split(max(1, _NUMBERS_AT_ONCE // n**2), dim=-1):
            some = some.double()
            some = some - some.mean(0)
            for kept, power in zip(
                (operand, both), self.isotypic.pair_powers(some.unflatten(0, (n, n))), strict=True
            ):
                kept.append(power)
            by_product = some.new_zeros(n, some.shape[1]).index_add(0, self.product, some) / n
            # The same value for the n pairs of a product counts n times.
            product.append(n * self.isotypic.powers(by_product))
            variance.append(some.square().sum(0))
        of_operand, of_both, of_product, total = (torch.cat(one, -1) for one in (operand, both, product, variance))
        tiny, block = torch.finfo(torch.float64).tiny, of_operand + of_both
        return {
            "neuron_shares": block.sum(-1) / total.sum().clamp_min(tiny),
            "neuron_operand_shares": of_operand.sum(-1) / total.sum().clamp_min(tiny),
            "neuron_product_shares": of_product.sum(-1) / total.sum().clamp_min(tiny),
            "n_neurons_of_representation": (block / total.clamp_min(tiny) >= ONE_REPRESENTATION).sum(-1),
        }

    def _activations(self, parameters: Parameters) -> Float[Tensor, "pairs d_mlp"]:
        found: list[Tensor] = []

        def keep(name: str, value: Tensor) -> Tensor:
            if name == self.last:
                found.append(value[:, -1])
            return value

        with torch.no_grad():
            for part in self.parts:
                self.model.logits(parameters, part, hook=keep)
        return torch.cat(found)


class _Geometry:
    """The rows of W_E and the columns of W_U of the elements: isotypic shares, and clusters by cosets."""

    def __init__(self, composition: Composition, isotypic: IsotypicBasis, orders: Int[Tensor, "n_shuffles n"]):
        self.tokens, self.isotypic, self.orders = composition.tokens, isotypic, orders
        group = composition.group
        self.classes = _coset_classes(group)
        self.cosets = {
            side: [torch.from_numpy(np.stack([cosets_of(one) for one in conjugates])) for conjugates in self.classes]
            for side, cosets_of in (("left", group.left_cosets), ("right", group.right_cosets))
        }
        self.constants: dict[str, object] = {}
        if self.classes:
            first = [conjugates[0] for conjugates in self.classes]
            self.constants = {
                "subgroups": np.array([subgroups.format_generators(group, one) for one in first], np.str_),
                "subgroup_orders": np.array([len(one) for one in first]),
                "n_conjugates": np.array([len(conjugates) for conjugates in self.classes]),
                "subgroup_elements": np.stack([np.isin(np.arange(len(group)), one) for one in first]),
            }

    def measure(
        self, W_E: Float[Tensor, "steps d_vocab d_model"], W_U: Float[Tensor, "steps d_model d_vocab_out"]
    ) -> dict[str, Tensor]:
        """Return all that is measured of some checkpoints' embeddings and unembeddings."""
        W_U = rearrange(W_U, "step d_model token -> step token d_model")
        found = {}
        for name, points in (("embedding", W_E), ("unembedding", W_U)):
            points = points[:, self.tokens].double()
            found[f"{name}_shares"] = self.isotypic.shares(points)
            found |= controls.shuffled_control(
                [{f"{name}_shares": self.isotypic.shares(points[:, order])} for order in self.orders]
            )
            if self.classes:
                distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
                for side, classes in self.cosets.items():
                    quantity = f"{name}_{side}_silhouette"
                    found[quantity] = _silhouettes(distances, classes)
                    found |= controls.shuffled_control(
                        [
                            {quantity: _silhouettes(distances, [cosets[:, order] for cosets in classes])}
                            for order in self.orders
                        ]
                    )
        return found


def _silhouettes(
    distances: Float[Tensor, "steps n n"], classes: list[Int[Tensor, "_ n"]]
) -> Float[Tensor, "steps classes"]:
    """Return for each class of subgroups the silhouette of the conjugate's cosets that are the best clusters."""
    return torch.stack([silhouettes(distances, cosets).amax(-1) for cosets in classes], -1)


def _coset_classes(group: Group) -> list[list[Int[np.ndarray, " m"]]]:
    """Return the classes of subgroups, but the trivial one and the whole; none where they would be too many."""
    if len(group) > LARGEST_WITH_COSETS:
        return []
    try:
        return subgroups.conjugacy_classes(group)[1:-1]
    except GrokscopeError:
        return []
