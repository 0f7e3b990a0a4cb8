"""The loss of every single equation, and whether it is answered right."""

import numpy as np

from grokscope.model import losses
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory


@by_checkpoint
def example_loss(trajectory: Trajectory) -> Series:
    """Measure each equation's cross-entropy −log p (nats), p the probability of its answer, and if that is the guess.

    Arrays over steps: `example_loss` (examples), in the order of `task.inputs`, in the config's `loss` and
    `loss_dtype`, then kept as float32; `is_right` (examples), whether the largest logit is the answer's. Answers are
    those that the run learned from, outliers and random labels included. A loss of ln(n) is a guess among n answers,
    0 certainty. Their means over train and test are the log's losses. Costs one forward pass over all equations a
    checkpoint, and five bytes an equation.
    """
    task, config = trajectory.task, trajectory.config
    equations = trajectory.model.equations(task.inputs)
    found = [
        losses.evaluate(trajectory.model, snapshot.parameters, equations, task.labels, config.loss_dtype, config.loss)
        for snapshot in trajectory
    ]
    return Series(
        "example_loss",
        trajectory.steps,
        {
            "example_loss": np.stack([loss.float().numpy() for loss, _ in found]),
            "is_right": np.stack([right.numpy() for _, right in found]),
        },
    )


@by_checkpoint
def loss(trajectory: Trajectory) -> Series:
    """Measure mean cross-entropy (nats) and accuracy over the train, the test and all equations.

    Arrays over steps: `train_loss test_loss loss train_accuracy test_accuracy accuracy`; no prefix means all
    equations. It is the config's `loss` in its `loss_dtype`, as in the run's own log. With softmax a loss of
    ln(n) is a guess among n answers; an accuracy of 1 is every answer right. Costs one forward pass over all
    equations a checkpoint.
    """
    task, split, config = trajectory.task, trajectory.split, trajectory.config
    parts = {"train_": split.train, "test_": split.test, "": slice(None)}
    equations = trajectory.model.equations(task.inputs)
    rows = []
    for snapshot in trajectory:
        found, right = losses.evaluate(
            trajectory.model, snapshot.parameters, equations, task.labels, config.loss_dtype, config.loss
        )
        rows.append(
            {f"{prefix}loss": float(found[part].mean()) for prefix, part in parts.items()}
            | {f"{prefix}accuracy": float(right[part].double().mean()) for prefix, part in parts.items()}
        )
    return Series.of_rows("loss", trajectory.steps, rows)
