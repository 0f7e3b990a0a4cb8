"""What the loss becomes without a part: a frequency of the logits, the neurons' fine structure, a sublayer."""

import torch
from torch import Tensor

from grokscope.circuits.key_frequencies import CLUSTER_THRESHOLD, losses_without_frequency, restricted_logits
from grokscope.circuits.pairs import CircleGrid, pair_losses
from grokscope.fourier import cyclic, cyclic_2d
from grokscope.measures._declaration import measure
from grokscope.model.forward import Parameters
from grokscope.model.losses import cross_entropy
from grokscope.series import Series
from grokscope.trajectory import Trajectory


@measure(n_checkpoints=24, by_checkpoint=True)
def ablations(trajectory: Trajectory) -> Series:
    """Measure the loss over all pairs with parts of the computation removed, beside the loss as it is.

    All losses are a softmax's mean cross-entropy in nats over the pairs with both operands on the task's circle,
    against the right answers. Arrays over steps:

    - `loss`: nothing removed;
    - `loss_without_frequency` (frequencies): the logits less their projections on u_k and v_k (`grokscope.waves`).
      A frequency that the network uses raises it; one that is mere noise leaves it or lowers it. This is the causal
      check of key frequencies (`grokscope.key_frequencies`);
    - `loss_with_only_frequency` (frequencies): the logits reduced to these projections and each class's mean;
    - `loss_with_polynomials`: the last block's neurons that belong to a frequency (a share of at least 0.85, as in
      the measure `neurons`) replaced by their polynomial of degree 2 in its waves; near `loss` where that is all
      they do (Nanda et al. 2023, section 4.2). `loss_with_all_polynomials`: all of its neurons replaced, whatever
      their share;
    - `loss_without_attention`, `loss_without_mlp`: what attention, or the MLP, adds to the residual stream removed,
      in every block. Without attention the answer's position sees no operand, so the loss is at least ln(classes).

    Constants: `frequencies`. The control of one frequency's removal is all the others'. Raise GrokscopeError for a
    task without a circle. Costs a cross-entropy over all pairs a frequency and checkpoint: about a second for
    n = 113.
    """
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)
    rows = [_row(grid, snapshot.parameters) for snapshot in trajectory]
    constants = {"frequencies": cyclic.frequencies(len(grid.circle))}
    return Series.of_rows("ablations", trajectory.steps, rows, constants)


def _row(grid: CircleGrid, parameters: Parameters) -> dict[str, Tensor]:
    logits, tokens = grid.logits(parameters), grid.circle.tokens
    means = cyclic_2d.answer_means(logits, grid.circle.answers)
    only = [cross_entropy(restricted_logits(means, k[None]), tokens).mean() for k in cyclic.frequencies(len(tokens))]

    def loss(changed: Tensor) -> Tensor:
        return pair_losses(changed, grid.answer_tokens).mean()

    post = grid.activations(parameters)[0][-1]
    blocks = cyclic_2d.pair_blocks(post)
    share, frequency = cyclic_2d.largest_share(cyclic_2d.block_shares(blocks, post))
    polynomials = cyclic_2d.block_functions(blocks, frequency, len(tokens))
    return {
        "loss": loss(logits),
        "loss_without_frequency": losses_without_frequency(grid, logits),
        "loss_with_only_frequency": torch.stack(only),
        "loss_with_polynomials": loss(
            _with_neurons(grid, parameters, torch.where(share >= CLUSTER_THRESHOLD, polynomials, post))
        ),
        "loss_with_all_polynomials": loss(_with_neurons(grid, parameters, polynomials)),
        "loss_without_attention": loss(grid.logits_without(parameters, "attn")),
        "loss_without_mlp": loss(grid.logits_without(parameters, "mlp")),
    }


def _with_neurons(grid: CircleGrid, parameters: Parameters, post: Tensor) -> Tensor:
    """Return the logits with the last block's neurons at the answer's position as given."""
    last = f"blocks.{grid.model.config.n_layers - 1}.mlp.hook_post"
    replaced = post.flatten(0, 1)[:, None]
    return grid.logits(parameters, lambda name, value: replaced if name == last else value)
