"""Neurons and attention heads by frequency: how much of each one's activity over the pairs one frequency holds."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.key_frequencies import CLUSTER_THRESHOLD
from grokscope.circuits.pairs import CircleGrid
from grokscope.fourier import cyclic_2d
from grokscope.measures._declaration import measure
from grokscope.model.forward import Parameters
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_MOST_SHUFFLED = 64
"""Of how many neurons of a block the control is: they are alike enough, and all of them would cost as much again."""


@measure(n_checkpoints=100)
def neurons(trajectory: Trajectory, *, n_shuffles: int = 4, seed: int = 0) -> Series:
    """Measure which frequency each neuron and each attention head follows over the pairs (i, j), and how closely.

    Of a neuron's activations at the answer's position, about their mean over all pairs of the task's circle, the
    share of the energy in the block {1, cos, sin} ⊗ {1, cos, sin} of a frequency, and the frequency of the largest
    (Nanda et al. 2023, section 4.2): with the share 1 it is a polynomial of degree 2 of that frequency's waves. The
    same for a head's attention from the answer's position to the first operand, which the paper finds linear in one
    frequency's waves (section 4.2, appendix C). Arrays over steps, with an axis of the blocks (layers):

    - `neuron_share`, `neuron_frequency` (layers, neurons); `head_share`, `head_frequency` (layers, heads). What is
      constant over the pairs, such as a neuron that never fires, has share 0 and frequency 1;
    - `mean_neuron_share`, `mean_head_share` (layers): the mean over them;
    - `clustered_share` (layers): the part of all neurons with a share of at least 0.85, the paper's threshold, and
      `cluster_sizes` (layers, frequencies): how many of these each frequency has;
    - `constant_share` (layers): the part of all neurons that are constant over the pairs.

    Constants: `frequencies`. Controls: `mean_neuron_share_shuffled` and `mean_head_share_shuffled` have the tokens in
    random orders, the same for both operands (mean over `n_shuffles`, at most 64 neurons of a block drawn once;
    `…_shuffled_stderr` its standard error), `…_initialization` is the untrained model: attention that is nearly
    uniform follows both operands' embeddings, and then has high shares by itself. Raise GrokscopeError for a task
    without a circle and for n_shuffles below 2. Costs a forward pass and 2n³ d_mlp operations a checkpoint, in
    the parameters' own type.
    """
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)
    n, d_mlp = len(grid.circle), trajectory.config.model.d_mlp
    generator = torch.Generator().manual_seed(seed)
    orders = controls.random_orders(n, n_shuffles, generator)
    drawn = torch.randperm(d_mlp, generator=generator)[:_MOST_SHUFFLED]
    rows = [_row(grid, snapshot.parameters, orders, drawn) for snapshot in trajectory]
    untrained = _row(grid, trajectory.untrained, orders[:0], drawn)
    constants = {"frequencies": torch.arange(1, n // 2 + 1)}
    controlled = ("mean_neuron_share", "mean_head_share", "clustered_share")
    constants |= controls.untrained_control({name: untrained[name] for name in controlled})
    return Series.of_rows("neurons", trajectory.steps, rows, constants)


def _row(
    grid: CircleGrid, parameters: Parameters, orders: Int[Tensor, "n_orders n"], drawn: Int[Tensor, " some"]
) -> dict[str, Tensor]:
    layers: dict[str, list[Tensor]] = {}

    def add(name: str, value: Tensor) -> None:
        layers.setdefault(name, []).append(value)

    by_neuron, by_head = grid.activations(parameters)
    for post, attention in zip(by_neuron, by_head, strict=True):
        for name, values, some in (("neuron", post, post[..., drawn]), ("head", attention, attention)):
            share, frequency = _largest(values)
            add(f"{name}_share", share)
            add(f"{name}_frequency", frequency)
            add(f"mean_{name}_share", share.mean())
            samples = [{f"mean_{name}_share": _largest(some[order][:, order])[0].mean()} for order in orders]
            for key, value in controls.shuffled_control(samples).items():
                add(key, value)
        share, frequency = layers["neuron_share"][-1], layers["neuron_frequency"][-1]
        is_clustered = share >= CLUSTER_THRESHOLD
        add("clustered_share", is_clustered.double().mean())
        add("cluster_sizes", torch.bincount(frequency[is_clustered] - 1, minlength=len(grid.circle) // 2))
        add("constant_share", (share == 0).double().mean())
    return {name: torch.stack(values) for name, values in layers.items()}


def _largest(values: Float[Tensor, "n n d"]) -> tuple[Float[Tensor, " d"], Int[Tensor, " d"]]:
    """Return the largest share of each function's energy in one frequency's block, and that frequency."""
    share, frequency = cyclic_2d.largest_share(cyclic_2d.block_shares(cyclic_2d.pair_blocks(values), values))
    return share.double(), frequency
