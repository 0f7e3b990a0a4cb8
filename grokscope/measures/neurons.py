"""Neurons and attention heads by frequency: how much of their activity over the pairs one frequency contains."""

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
from grokscope.variable import Variable, with_companions

_MOST_SHUFFLED = 64
"""The most neurons per block in the shuffled control, because all of them would cost as much as the measure."""


_VARIABLES = with_companions(
    {
        "neuron_share": Variable("largest share of one frequency, by neuron", dims=("layer", "neuron")),
        "neuron_frequency": Variable("frequency of each neuron", dims=("layer", "neuron")),
        "head_share": Variable("largest share of one frequency, by head", dims=("layer", "head")),
        "head_frequency": Variable("frequency of each head", dims=("layer", "head")),
        "mean_neuron_share": Variable("neurons' mean share of one frequency", dims=("layer",)),
        "mean_head_share": Variable("heads' mean share of one frequency", dims=("layer",)),
        "clustered_share": Variable("share of neurons with one frequency", dims=("layer",)),
        "cluster_sizes": Variable("number of neurons of each frequency", dims=("layer", "frequency")),
        "constant_share": Variable("share of constant neurons", dims=("layer",)),
        "frequencies": Variable("frequency", dims=("frequency",), role="coordinate"),
    },
    shuffled=("mean_neuron_share", "mean_head_share"),
    initialization=("mean_neuron_share", "mean_head_share", "clustered_share"),
)


@measure(n_checkpoints=100, variables=_VARIABLES)
def neurons(trajectory: Trajectory, *, n_shuffles: int = 4, seed: int = 0) -> Series:
    """Compute the largest share of one frequency in the energy of each neuron and attention head over the pairs.

    The share of a frequency is the part of the energy in its block {1, cos, sin} ⊗ {1, cos, sin}, over all pairs on
    the task's circle. The energy is about the mean. It is computed from a neuron's activations at the answer's
    position, and from a head's attention from that position to the first operand. A share of 1 is a polynomial of
    degree 2 in the waves of one frequency.

    Args:
        trajectory: The checkpoints to measure.
        n_shuffles: The number of random orders of the control, from 2. The standard error of the control falls as
            1/√n_shuffles.
        seed: The seed of the random orders and of the draw of neurons for the control. All steps share them.

    Returns:
        Series with arrays over the steps and the blocks (layers).

        - `neuron_share`, `head_share` (steps, layers, neurons or heads), from 0 to 1: the largest share of one
          frequency. It is 0 if the activity is constant over the pairs, as of a neuron that never fires.
        - `neuron_frequency`, `head_frequency` (steps, layers, neurons or heads): that frequency; 1 if the activity is
          constant.
        - `mean_neuron_share`, `mean_head_share` (steps, layers), from 0 to 1: the mean share.
        - `clustered_share` (steps, layers), from 0 to 1: the part of the neurons with a share of at least 0.85, the
          paper's threshold.
        - `cluster_sizes` (steps, layers, frequencies): the number of these neurons at each frequency.
        - `constant_share` (steps, layers), from 0 to 1: the part of the neurons that are constant over the pairs.

        The arrays of heads are absent if the network has no attention.

        Constants: `frequencies`.

    Raises:
        GrokscopeError: The task has no circle, the network has no neurons, or `n_shuffles` is out of range.

    References:
        - Nanda et al. 2023, section 4.2 and appendix C. They find attention linear in the waves of one frequency.

    Invariances:
        - A rotation of the residual stream, rescaled ReLU neurons, and a shift of all logits.
        - The order of neurons and heads only reorders the arrays.

    Controls:
        - `mean_neuron_share_shuffled`, `mean_head_share_shuffled`: the tokens in random orders, the same for both
          operands, of at most 64 neurons per block. The mean over the orders, with its standard error
          `…_shuffled_stderr`.
        - `…_initialization`: the untrained model. Nearly uniform attention follows the embeddings of both operands,
          so its shares are high by themselves.

    Cost:
        - One forward pass and 2n³ d_mlp operations per checkpoint, in the type of the parameters, for n tokens on the
          circle.
    """
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split_or_none)
    n, d_mlp = len(grid.circle), grid.activations(trajectory.untrained)[0][0].shape[-1]
    generator = torch.Generator().manual_seed(seed)
    orders = controls.random_orders(n, n_shuffles, generator)
    drawn = torch.randperm(d_mlp, generator=generator)[:_MOST_SHUFFLED]
    rows = [_row(grid, snapshot.parameters, orders, drawn) for snapshot in trajectory]
    untrained = _row(grid, trajectory.untrained, orders[:0], drawn)
    constants = {"frequencies": torch.arange(1, n // 2 + 1)}
    controlled = ("mean_neuron_share", "mean_head_share", "clustered_share")
    constants |= controls.untrained_control({name: untrained[name] for name in controlled if name in untrained})
    return Series.of_rows("neurons", trajectory.steps, rows, constants)


def _row(
    grid: CircleGrid, parameters: Parameters, orders: Int[Tensor, "n_orders n"], drawn: Int[Tensor, " n_drawn"]
) -> dict[str, Tensor]:
    """Return every quantity of one checkpoint; no control without orders."""
    layers: dict[str, list[Tensor]] = {}

    def add(name: str, value: Tensor) -> None:
        layers.setdefault(name, []).append(value)

    by_neuron, by_head = grid.activations(parameters)
    for post, *attention in zip(by_neuron, *([by_head] if by_head else []), strict=True):
        units = [("neuron", post, post[..., drawn]), *(("head", heads, heads) for heads in attention)]
        for unit, values, control_values in units:
            share, frequency = _largest_share(values)
            add(f"{unit}_share", share)
            add(f"{unit}_frequency", frequency)
            add(f"mean_{unit}_share", share.mean())
            samples = [
                {f"mean_{unit}_share": _largest_share(control_values[order][:, order])[0].mean()} for order in orders
            ]
            for name, value in controls.shuffled_control(samples).items():
                add(name, value)
        share, frequency = layers["neuron_share"][-1], layers["neuron_frequency"][-1]
        is_clustered = share >= CLUSTER_THRESHOLD
        add("clustered_share", is_clustered.double().mean())
        add("cluster_sizes", torch.bincount(frequency[is_clustered] - 1, minlength=len(grid.circle) // 2))
        add("constant_share", (share == 0).double().mean())
    return {name: torch.stack(values) for name, values in layers.items()}


def _largest_share(values: Float[Tensor, "n n d"]) -> tuple[Float[Tensor, " d"], Int[Tensor, " d"]]:
    """Return the largest share of each function's energy in one frequency's block, and that frequency."""
    share, frequency = cyclic_2d.largest_share(cyclic_2d.block_shares(cyclic_2d.pair_blocks(values), values))
    return share.double(), frequency
