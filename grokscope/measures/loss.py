"""The loss and the correctness of the answers: their means, and the values of every single equation."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.measures._declaration import measure
from grokscope.model import losses
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable

_VARIABLES = {
    "train_loss": Variable("{loss} train loss", "nats", is_logarithmic=True),
    "test_loss": Variable("{loss} test loss", "nats", is_logarithmic=True),
    "loss": Variable("{loss} loss over all equations", "nats", is_logarithmic=True),
    "train_accuracy": Variable("train accuracy"),
    "test_accuracy": Variable("test accuracy"),
    "accuracy": Variable("accuracy over all equations"),
    "train_sequence_accuracy": Variable("train sequences with every target right"),
    "test_sequence_accuracy": Variable("test sequences with every target right"),
    "sequence_accuracy": Variable("sequences with every target right"),
}


@measure(by_checkpoint=True, variables=_VARIABLES)
def loss(trajectory: Trajectory) -> Series:
    """Compute the mean cross-entropy −log p(answer) and the accuracy over the train, the test and all equations.

    The loss is the config's `loss` in its `loss_dtype`, so the values are those of the run's own log. With softmax, a
    loss of ln(n) is a guess among n answers. The answers are those that the run learned from, outliers and random
    labels included.

    Args:
        trajectory: The checkpoints to measure.

    Returns:
        Series with arrays over the steps. The prefix names the equations; without a prefix, all equations count.

        - `train_loss`, `test_loss`, `loss` (steps), in nats: 0 is certainty; NaN for an empty part. The arrays
          of train and test equations are absent if the training set is unknown.
        - `train_accuracy`, `test_accuracy`, `accuracy` (steps), from 0 to 1: the share of equations whose largest
          logit is the answer's.
        - `train_sequence_accuracy`, `test_sequence_accuracy`, `sequence_accuracy` (steps), from 0 to 1: the share of
          examples with every target right. Only for tasks with several targets per example; their loss and accuracy
          are means over the targets.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, and rescaled ReLU neurons.
        - A number added to all logits of an equation, for softmax.

    Cost:
        - One forward pass over all equations per checkpoint.
    """
    split, labels = trajectory.split_or_none, trajectory.task.labels
    parts = {"": torch.arange(len(labels))}
    if split:
        parts = {"train_": split.train, "test_": split.test, **parts}
    rows = []
    for example_losses, is_right in _evaluated(trajectory):
        row = losses.means_by_part(example_losses, is_right, labels, parts)
        if trajectory.task.is_sequence:
            is_all_right = (is_right == 1).double()
            row |= {f"{prefix}sequence_accuracy": float(is_all_right[part].mean()) for prefix, part in parts.items()}
        rows.append(row)
    return Series.of_rows("loss", trajectory.steps, rows)


_EXAMPLE_VARIABLES = {
    "example_loss": Variable("{loss} loss of each equation", "nats", ("example",), is_logarithmic=True),
    "is_right": Variable("whether the answer is right", dims=("example",)),
}


@measure(n_checkpoints=60, by_checkpoint=True, variables=_EXAMPLE_VARIABLES)
def example_loss(trajectory: Trajectory) -> Series:
    """Compute the cross-entropy −log p(answer) of every equation, and whether its largest logit is the answer's.

    The means over the train and the test equations are the arrays of the measure `loss`, which states the loss
    function and the answers.

    Args:
        trajectory: The checkpoints to measure.

    Returns:
        Series with arrays over the steps, and over the equations in the order of `task.inputs`.

        - `example_loss` (steps, examples), in nats: computed in the config's `loss_dtype`, stored as float32.
        - `is_right` (steps, examples): whether the largest logit is the answer's; with several targets, of all.

    Invariances:
        - As for the measure `loss`.

    Cost:
        - One forward pass over all equations per checkpoint.
        - Five bytes per equation and checkpoint.
    """
    evaluated = list(_evaluated(trajectory))
    arrays = {
        "example_loss": np.stack([example_losses.float().numpy() for example_losses, _ in evaluated]),
        "is_right": np.stack([(is_right == 1).numpy() for _, is_right in evaluated]),
    }
    return Series("example_loss", trajectory.steps, arrays)


def _evaluated(trajectory: Trajectory) -> Iterator[tuple[Float[Tensor, " examples"], Tensor]]:
    """Yield each checkpoint's loss of every equation, and whether its answer is right or which share is."""
    model, task, config = trajectory.model, trajectory.task, trajectory.config
    equations = model.equations(task.inputs)
    for snapshot in trajectory:
        yield losses.evaluate(model, snapshot.parameters, equations, task.labels, config.loss_dtype, config.loss)
