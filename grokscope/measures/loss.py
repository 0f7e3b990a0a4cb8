"""Losses and accuracies, recomputed from checkpoints."""

from grokscope import losses
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory


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
