"""The loss without a part of the computation: a frequency of the logits, the neurons' fine structure, a sublayer."""

import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.circuits.key_frequencies import CLUSTER_THRESHOLD, losses_without_frequency, restricted_logits
from grokscope.circuits.pairs import CircleGrid
from grokscope.fourier import cyclic, cyclic_2d
from grokscope.measures._declaration import measure
from grokscope.model.forward import Parameters
from grokscope.model.losses import cross_entropy
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable

_VARIABLES = {
    "loss": Variable("softmax loss", "nats", is_logarithmic=True),
    "loss_without_frequency": Variable(
        "softmax loss without each frequency", "nats", ("frequency",), is_logarithmic=True
    ),
    "loss_with_only_frequency": Variable(
        "softmax loss with only one frequency", "nats", ("frequency",), is_logarithmic=True
    ),
    "loss_with_polynomials": Variable(
        "softmax loss with polynomials for clustered neurons", "nats", is_logarithmic=True
    ),
    "loss_with_all_polynomials": Variable(
        "softmax loss with polynomials for all neurons", "nats", is_logarithmic=True
    ),
    "loss_without_attention": Variable("softmax loss without attention", "nats", is_logarithmic=True),
    "loss_without_mlp": Variable("softmax loss without MLP", "nats", is_logarithmic=True),
    "frequencies": Variable("frequency", dims=("frequency",), role="coordinate"),
}


@measure(n_checkpoints=24, by_checkpoint=True, variables=_VARIABLES)
def ablations(trajectory: Trajectory) -> Series:
    """Compute the mean cross-entropy over the equations on the circle with parts of the computation removed.

    All losses are those of a softmax, in nats, against the correct answers. u_k and v_k are the cosine and the sine
    of frequency k in the answer's position (`fourier.cyclic_2d`).

    Args:
        trajectory: The checkpoints to measure.

    Returns:
        Series with arrays over the steps, in nats.

        - `loss` (steps): nothing removed.
        - `loss_without_frequency` (steps, frequencies): the logits minus their projections on u_k and v_k. Removing a
          frequency that the network uses raises the loss; removing noise keeps or lowers it. This is the causal check
          of key frequencies (`circuits.key_frequencies`).
        - `loss_with_only_frequency` (steps, frequencies): the logits reduced to these projections and each class's
          mean.
        - `loss_with_polynomials` (steps): the clustered neurons of the last block replaced by their polynomial of
          degree 2 in the waves of their frequency. Clustered neurons have a share of at least 0.85, as in the measure
          `neurons`. The loss stays near `loss` if they contribute only the polynomial.
        - `loss_with_all_polynomials` (steps): all neurons of the last block replaced.
        - `loss_without_attention`, `loss_without_mlp` (steps): attention, or the MLP, adds nothing to the residual
          stream, in any block. Without attention the answer's position sees no operand, so the loss is at least
          ln(classes). Absent for a network without a residual stream.

        Constants: `frequencies`.

    Raises:
        GrokscopeError: The task has no circle.

    References:
        - Nanda et al. 2023, section 4.2: the polynomials.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, rescaled ReLU neurons, a shift of all
          logits.

    Controls:
        - The removal of all other frequencies is the control of the removal of one.

    Cost:
        - One cross-entropy over all pairs per frequency and checkpoint: about a second for n = 113.
    """
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split_or_none)
    rows = [_row(grid, snapshot.parameters) for snapshot in trajectory]
    constants = {"frequencies": cyclic.frequencies(len(grid.circle))}
    return Series.of_rows("ablations", trajectory.steps, rows, constants)


def _row(grid: CircleGrid, parameters: Parameters) -> dict[str, Tensor]:
    """Return the losses of one checkpoint."""
    logits, tokens = grid.logits(parameters), grid.circle.tokens
    means = cyclic_2d.answer_means(logits, grid.circle.answers)
    only = [
        grid.mean_over_equations(cross_entropy(restricted_logits(means, k[None]), tokens))
        for k in cyclic.frequencies(len(tokens))
    ]
    post = grid.activations(parameters)[0][-1]
    blocks = cyclic_2d.pair_blocks(post)
    share, frequency = cyclic_2d.largest_share(cyclic_2d.block_shares(blocks, post))
    polynomials = cyclic_2d.block_functions(blocks, frequency, len(tokens))
    clustered_polynomials = torch.where(share >= CLUSTER_THRESHOLD, polynomials, post)
    row = {
        "loss": grid.mean_loss(logits),
        "loss_without_frequency": losses_without_frequency(grid, logits),
        "loss_with_only_frequency": torch.stack(only),
        "loss_with_polynomials": grid.mean_loss(_logits_with_neurons(grid, parameters, clustered_polynomials)),
        "loss_with_all_polynomials": grid.mean_loss(_logits_with_neurons(grid, parameters, polynomials)),
    }
    if grid.model.sublayers:
        row["loss_without_attention"] = grid.mean_loss(grid.logits_without(parameters, "attn"))
        row["loss_without_mlp"] = grid.mean_loss(grid.logits_without(parameters, "mlp"))
    return row


def _logits_with_neurons(
    grid: CircleGrid, parameters: Parameters, post: Float[Tensor, "n n d_mlp"]
) -> Float[Tensor, "n n classes"]:
    """Return the logits with the last block's neurons at the answer's position replaced."""
    last = grid.model.neurons[-1]

    def replace(name: str, value: Tensor) -> Tensor:
        if name != last:
            return value
        return torch.cat([value[:, :-1], post.flatten(0, 1)[:, None]], 1)

    return grid.logits(parameters, replace)
