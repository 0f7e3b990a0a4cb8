"""Composition in a group by its irreducible representations, and by cosets (Chughtai et al. 2023)."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.algebra.irreps import irreducible_representations
from grokscope.circuits import controls
from grokscope.circuits.cosets import CosetClusters
from grokscope.circuits.group_neurons import GroupNeurons
from grokscope.circuits.pairs import GroupLogits, LogitBatches
from grokscope.fourier.group import Characters, IsotypicBasis
from grokscope.measures._chunks import evaluate_in_chunks
from grokscope.measures._declaration import Panel, measure
from grokscope.model.forward import Parameters
from grokscope.model.losses import cross_entropy
from grokscope.series import Series
from grokscope.tasks.group_pairs import as_composition
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

KEY_SIMILARITY = 1 / 4
"""The share of the largest logit similarity that a key representation exceeds."""
_CHECKPOINTS_PER_CHUNK = 16


_SILHOUETTES = tuple(
    f"{matrix}_{side}_silhouette" for matrix in ("embedding", "unembedding") for side in ("left", "right")
)
_VARIABLES = with_companions(
    {
        "embedding_shares": Variable("W_E's variance by representation", dims=("representation",)),
        "unembedding_shares": Variable("W_U's variance by representation", dims=("representation",)),
        "logit_shares": Variable("logits' variance by representation", dims=("representation",)),
        "logit_similarity": Variable("logits' similarity to each character", dims=("representation",)),
        "logit_product_share": Variable("share of the logits that depend on the product"),
        "logit_variance_explained": Variable("key characters' share of the logits' variance"),
        "neuron_shares": Variable("neurons' mean share by representation", dims=("representation",)),
        "neuron_operand_shares": Variable("neurons' operand share by representation", dims=("representation",)),
        "neuron_product_shares": Variable("neurons' product share by representation", dims=("representation",)),
        "n_neurons_of_representation": Variable("neurons of each representation", dims=("representation",)),
        "loss": Variable("softmax loss over all equations", "nats", is_logarithmic=True),
        "train_loss": Variable("softmax train loss", "nats", is_logarithmic=True),
        "restricted_loss": Variable("softmax restricted loss", "nats", is_logarithmic=True),
        "excluded_loss": Variable("softmax excluded loss", "nats", is_logarithmic=True),
        "excluded_loss_by_representation": Variable(
            "softmax excluded loss by representation", "nats", ("key_representation",), is_logarithmic=True
        ),
        **{
            f"{matrix}_{side}_silhouette": Variable(f"silhouette of {side} cosets in {symbol}", dims=("subgroup",))
            for matrix, symbol in (("embedding", "W_E"), ("unembedding", "W_U"))
            for side in ("left", "right")
        },
        "representations": Variable("representation", dims=("representation",), role="coordinate"),
        "key_representations": Variable(
            "key representation", dims=("key_representation",), role="coordinate", of="representations"
        ),
        "dimensions": Variable("dimension of each representation", dims=("representation",)),
        "commutants": Variable("mean square of each character", dims=("representation",)),
        "share_chance": Variable("share by chance", dims=("representation",)),
        "neuron_share_chance": Variable("neurons' share by chance", dims=("representation",)),
        "subgroups": Variable("subgroup", dims=("subgroup",), role="coordinate"),
        "subgroup_orders": Variable("order of each subgroup", dims=("subgroup",)),
        "subgroup_elements": Variable("members of each subgroup", dims=("subgroup", "element")),
        "n_conjugates": Variable("number of conjugates", dims=("subgroup",)),
        "tokens": Variable("token", dims=("token",), role="coordinate"),
    },
    shuffled=("embedding_shares", "unembedding_shares", "logit_similarity", *_SILHOUETTES),
    initialization=(
        *("embedding_shares", "unembedding_shares", "logit_shares", "logit_similarity", "logit_product_share"),
        *("logit_variance_explained", "neuron_shares", "neuron_operand_shares", "neuron_product_shares"),
        *("n_neurons_of_representation", "loss", "train_loss", "restricted_loss", "excluded_loss"),
        *("excluded_loss_by_representation", *_SILHOUETTES),
    ),
)
_PANELS = (
    Panel(
        "losses", "softmax loss: restricted, excluded and train", ("train_loss", "restricted_loss", "excluded_loss")
    ),
)


@measure(n_checkpoints=48, variables=_VARIABLES, panels=_PANELS)
def representations(trajectory: Trajectory, *, n_shuffles: int = 8, seed: int = 0) -> Series:
    """Compute which irreducible representations ρ of a group the network composes elements with.

    The group is the task's, if the answer is a·b in it. A task on a circle of n points has C_n, whose representations
    are the Fourier frequencies in order. Subtraction and division read the second operand as its inverse, and zero is
    left out of pairs, embeddings and answers. The k representations are the non-trivial real ones
    (`algebra.irreps.irreducible_representations`): the trivial one has no variance, and softmax ignores it.

    A representation is key if its logit similarity at the last step exceeds a quarter of the largest; the paper's
    code takes any above 0.005. In an untrained model all similarities are small and many pass, so read the key
    representations together with `logit_variance_explained`.

    Args:
        trajectory: The checkpoints to measure. The key representations are those of the last one.
        n_shuffles: The number of random orders of the control, from 2. The standard error of the control falls as
            1/√n_shuffles.
        seed: The seed of the random orders. All steps share them.

    Returns:
        Series with arrays over the steps. All shares are from 0 to 1. The mean over the answers is subtracted from
        the logits of each pair.

        - `embedding_shares`, `unembedding_shares` (steps, k): the share of the variance of W_E's rows, or W_U's
          columns, in ρ's isotypic subspace V_ρ, the span of ρ's matrix entries. The shares sum to 1. The paper's code
          does not subtract the mean, and takes W_out W_U for the unembedding of a transformer.
        - `neuron_shares` (steps, k): the share of the variance of the last MLP's activations over all pairs in ρ's
          block. The block contains the products of a function of a and a function of b in 1 ⊕ V_ρ.
        - `neuron_operand_shares` (steps, k): the part of it that depends on one operand alone.
        - `neuron_product_shares` (steps, k): the part of it that depends on a·b alone, which the paper calls the
          hidden representation.
        - `n_neurons_of_representation` (steps, k): the number of neurons with at least 85% of their variance in the
          block.
        - `logit_similarity` (steps, k): the cosine between the logits and Tr ρ(a)ρ(b)ρ(c⁻¹), as vectors over all (a,
          b, c), as in the paper's code.
        - `logit_shares` (steps, k): the share of the logits' square in V_ρ(a·b) ⊗ V_ρ(c). The character is one
          direction of it.
        - `logit_product_share` (steps): the share that depends on a·b and c, and not on c alone.
        - `logit_variance_explained` (steps): the share of the key characters together, Σ similarity².
        - `loss`, `train_loss` (steps), in nats: over all pairs with their correct answers, and over the train pairs
          with the answers that the run learned from. If the train pairs are unknown, `train_loss` and the excluded
          losses are absent.
        - `restricted_loss` (steps), in nats: over all pairs with their correct answers, of the logits' projection on
          the key characters plus each answer's mean logit over all pairs.
        - `excluded_loss` (steps), in nats: the train loss of the logits without that projection. The paper's losses
          restrict the last MLP's activations instead: to the span of the entries of ρ(ab), or to what is orthogonal
          to it, with no mean added. Its code computes losses from the logits too, but the paper does not use them.
        - `excluded_loss_by_representation` (steps, key), in nats: the same without one key character.
        - `embedding_left_silhouette`, `embedding_right_silhouette`, `unembedding_left_silhouette` and
          `unembedding_right_silhouette` (steps, classes), from −1 to 1: the mean silhouette of the points cut into
          cosets xH, or Hx, for each class of conjugate subgroups H, the largest over the class. Missing beyond 120
          elements or 200 classes, and without a subgroup between the trivial one and the group.

        Constants: `tokens`; `representations`, the names; `dimensions` over the real numbers; `commutants`, 1, 2 or 4
        for a real, complex or quaternionic type; `key_representations`, indices from 0; `subgroups`, by generators;
        `subgroup_orders`; `n_conjugates`; `subgroup_elements` (classes, elements).

    Raises:
        GrokscopeError: The task is not a composition in a group, or `n_shuffles` is out of range.

    References:
        - Chughtai et al. 2023, sections 5.1 (logits) and 5.2 (embeddings).
        - Nanda et al. 2023: the mean logit of the restricted loss, and the threshold of 85%.
        - Stander et al. 2024: cosets.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, rescaled ReLU neurons, a shift of all
          logits.

    Controls:
        - `…_shuffled`: embedding and unembedding shares, logit similarity and silhouettes with the elements in random
          orders. The mean over the orders, with its standard error `…_shuffled_stderr`.
        - `…_initialization`: the untrained model.
        - `share_chance`, `neuron_share_chance` (k): the dimension of the subspace or block over that of the whole.

    Cost:
        - n³ logits and n² times all neurons' activations per checkpoint, in batches: one to two seconds for S5. S6
          has 373 million logits and takes many minutes.
    """
    composition = as_composition(trajectory.task)
    n = len(composition)
    orders = controls.random_orders(n, n_shuffles, seed)
    irreps = irreducible_representations(composition.group)
    nontrivial = irreps[1:]
    characters, isotypic = Characters(composition.group, nontrivial), IsotypicBasis.from_representations(irreps)
    group_logits = GroupLogits(trajectory.model, trajectory.task, trajectory.split_or_none, composition)
    neurons = GroupNeurons(trajectory.model, trajectory.task, composition, isotypic)
    cosets = CosetClusters(composition.group)
    key = _key_representations(group_logits, characters, trajectory.last.parameters, orders)

    def activity(parameters: Parameters) -> dict[str, Tensor]:
        batches = group_logits.batches(parameters)
        means, shuffled_means, mean_square = group_logits.product_means(batches, orders)
        row = _logit_quantities(means, shuffled_means, mean_square, characters, isotypic)
        explained = row["logit_similarity"][key].square().sum()
        losses = _losses(batches, group_logits, characters, means, key)
        return {**row, "logit_variance_explained": explained, **losses, **neurons.shares(parameters)}

    def geometry(
        W_E: Float[Tensor, "steps d_vocab d_model"], W_U: Float[Tensor, "steps d_model d_vocab_out"]
    ) -> dict[str, Tensor]:
        arrays = {}
        W_U = rearrange(W_U, "step d_model token -> step token d_model")
        for name, W in (("embedding", W_E), ("unembedding", W_U)):
            points = W[:, composition.tokens].double()
            samples = [{f"{name}_shares": isotypic.shares(points[:, order])} for order in orders]
            arrays[f"{name}_shares"] = isotypic.shares(points)
            arrays |= controls.shuffled_control(samples) | cosets.silhouettes(name, points, orders)
        return arrays

    def quantities(chunk: Trajectory) -> dict[str, Tensor]:
        rows = [activity(snapshot.parameters) for snapshot in chunk]
        arrays = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return arrays | geometry(chunk.matrix("embedding"), chunk.matrix("unembedding"))

    arrays = evaluate_in_chunks(trajectory, _CHECKPOINTS_PER_CHUNK, quantities)
    untrained = trajectory.untrained
    untrained_geometry = geometry(
        *(trajectory.model.matrix(part).read(untrained)[None] for part in ("embedding", "unembedding"))
    )
    untrained_row = activity(untrained) | {name: array[0] for name, array in untrained_geometry.items()}
    dimensions = torch.tensor([irrep.isotypic_dimension for irrep in nontrivial])
    constants = {
        "tokens": composition.tokens,
        "representations": np.array([irrep.name for irrep in nontrivial], np.str_),
        "dimensions": torch.tensor([irrep.dimension for irrep in nontrivial]),
        "commutants": torch.tensor([irrep.commutant for irrep in nontrivial]),
        "share_chance": dimensions / (n - 1.0),
        "neuron_share_chance": ((1.0 + dimensions) ** 2 - 1) / (n**2 - 1),
        "key_representations": key,
        **cosets.constants(),
        **controls.untrained_control(untrained_row),
    }
    return Series(
        "representations",
        trajectory.steps,
        {name: array.numpy() for name, array in arrays.items()},
        {name: np.asarray(array) for name, array in constants.items()},
    )


def _key_representations(
    group_logits: GroupLogits, characters: Characters, parameters: Parameters, orders: Int[Tensor, "n_orders n"]
) -> Int[Tensor, " n_key"]:
    """Return the indices of the representations with more than a quarter of the largest logit similarity."""
    means, _, mean_square = group_logits.product_means(group_logits.batches(parameters), orders)
    similarity = characters.similarity(characters.coefficients(means), mean_square)
    return torch.nonzero(similarity > KEY_SIMILARITY * similarity.amax().clamp_min(0))[:, 0]


def _logit_quantities(
    means: Float[Tensor, "n n"],
    shuffled_means: Float[Tensor, "n_orders n n"],
    mean_square: Float[Tensor, ""],
    characters: Characters,
    isotypic: IsotypicBasis,
) -> dict[str, Tensor]:
    """Return the content of each representation in the logits, from their `GroupLogits.product_means`."""
    samples = [
        {"logit_similarity": characters.similarity(characters.coefficients(shuffled), mean_square)}
        for shuffled in shuffled_means
    ]
    # Each mean is over n pairs, so the squares are compared with 1/n of the square of all n³ logits.
    square = (mean_square * len(means) ** 2).clamp_min(torch.finfo(torch.float64).tiny)
    return {
        "logit_similarity": characters.similarity(characters.coefficients(means), mean_square),
        **controls.shuffled_control(samples),
        "logit_shares": isotypic.pair_powers(means[..., None])[1][:, 0] / square,
        "logit_product_share": (means - means.mean(0)).square().sum() / square,
    }


def _losses(
    batches: LogitBatches,
    group_logits: GroupLogits,
    characters: Characters,
    means: Float[Tensor, "n n"],
    key: Int[Tensor, " n_key"],
) -> dict[str, Tensor]:
    """Return the losses with the key characters alone, and without them; `means` are the product means."""
    coefficients = characters.coefficients(means)
    selections = [
        torch.zeros_like(coefficients).index_copy(0, indices, coefficients[indices])
        for indices in (key, *key[:, None])
    ]
    projections = torch.stack([characters.logits(selection) for selection in selections])
    # The restricted logits depend on the product alone.
    by_product = cross_entropy(projections[0] + means.mean(0), torch.arange(len(means)))
    restricted = group_logits.mean_over_equations(by_product)
    loss, train_loss, excluded = group_logits.losses(batches, projections)
    if not group_logits.is_trained.any():
        return {"loss": loss, "restricted_loss": restricted}
    return {
        "loss": loss,
        "train_loss": train_loss,
        "restricted_loss": restricted,
        "excluded_loss": excluded[0],
        "excluded_loss_by_representation": excluded[1:],
    }
