"""The moving average of the weights: the losses of averaged weights, and their distance from the weights."""

from collections.abc import Iterator

import torch
from torch import Tensor

from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.model import losses
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable

_VARIABLES = {
    **{
        f"{part}loss": Variable(f"{{loss}} {name} loss of averaged weights", "nats", is_logarithmic=True)
        for part, name in (("train_", "train"), ("test_", "test"), ("", "overall"))
    },
    **{
        f"{part}accuracy": Variable(f"{name} accuracy of averaged weights")
        for part, name in (("train_", "train"), ("test_", "test"), ("", "overall"))
    },
    "distance": Variable("distance of weights from their average"),
}


@measure(variables=_VARIABLES)
def weight_average(trajectory: Trajectory, *, half_life: float = 200.0) -> Series:
    """Evaluate the exponential moving average of the weights, w̄(t) = β^Δ w̄(t − Δ) + (1 − β^Δ) w(t).

    Here Δ is the number of steps since the previous checkpoint, β = 2^(−1/half_life), and w̄ = w at the first
    checkpoint. With a checkpoint at every step this is the average that training code keeps. With sparser checkpoints
    it averages the checkpoints, each with the weight of the steps before it. The training itself is not changed.

    Args:
        trajectory: The checkpoints to average and measure.
        half_life: The number of steps after which a checkpoint's weight in the average has halved, above 0. The
            default averages over a few hundred steps, which removes the oscillations of a learning rate of 1e-3. Use
            several times the distance of two checkpoints.

    Returns:
        Series with arrays over the steps, all of w̄; the prefix names the equations, without a prefix all of them.

        - `train_loss`, `test_loss`, `loss` (steps), in nats; those of train and test are absent if the training set
          is unknown.
        - `train_accuracy`, `test_accuracy`, `accuracy` (steps), from 0 to 1.
        - `distance` (steps): |w − w̄| over all parameters, in the units of the weights.

    Raises:
        GrokscopeError: `half_life` is not above 0.

    References:
        Polyak & Juditsky 1992 (averaging of iterates); Izmailov et al. 2018 (averaged weights of networks).

    Invariances:
        - The order of neurons and heads, if it is the same at all checkpoints.

    Controls:
        - The measure `loss`, of the weights themselves. A short half-life gives its values.

    Cost:
        - One forward pass over all equations per checkpoint, and one copy of the weights in float64.
    """
    check_ranges(("half_life", half_life, half_life > 0, "a number of steps above 0"))
    model, task, config, split = trajectory.model, trajectory.task, trajectory.config, trajectory.split_or_none
    equations = model.equations(task.inputs)
    parts = {"": torch.arange(len(task.labels))}
    if split:
        parts = {"train_": split.train, "test_": split.test, **parts}
    rows = []
    for parameters, distance in _averages(trajectory, half_life):
        example_losses, is_right = losses.evaluate(
            model, parameters, equations, task.labels, config.loss_dtype, config.loss
        )
        rows.append(losses.means_by_part(example_losses, is_right, task.labels, parts) | {"distance": distance})
    return Series.of_rows("weight_average", trajectory.steps, rows)


def _averages(trajectory: Trajectory, half_life: float) -> Iterator[tuple[dict[str, Tensor], float]]:
    """Yield, for each checkpoint, the average in the precision of the weights and the weights' distance from it."""
    average: dict[str, Tensor] = {}
    previous = int(trajectory.steps[0])
    for snapshot in trajectory:
        weights = {name: tensor.double() for name, tensor in snapshot.parameters.items()}
        share = 1 - 2 ** (-(snapshot.step - previous) / half_life)
        average = {name: average[name].lerp(tensor, share) if average else tensor for name, tensor in weights.items()}
        previous = snapshot.step
        squares = [(tensor - average[name]).square().sum() for name, tensor in weights.items()]
        yield (
            {name: average[name].to(tensor.dtype) for name, tensor in snapshot.parameters.items()},
            float(torch.stack(squares).sum().sqrt()),
        )
