"""The columns of a log that only some tasks have, as series that the page can plot."""

import numpy as np

from grokscope.series import Series
from grokscope.tasks import Task
from grokscope.variable import Variable


def further_log(log: Series, task: Task) -> list[Series]:
    """Return the log's further columns as one series, or nothing if the log has none.

    - `sequence_accuracy` (steps, sets): the share of sequences with every target right, in train and test set.
    - `test_accuracy_by_task` and so on (steps, tasks): the loss or accuracy of each of a run's tasks.

    Args:
        log: The run's log.
        task: The run's task.
    """
    arrays: dict[str, np.ndarray] = {}
    variables = {
        "sets": Variable("set", dims=("set",), role="coordinate"),
        "tasks": Variable("task", dims=("task",), role="coordinate"),
    }
    if "train_sequence_accuracy" in log:
        arrays["sequence_accuracy"] = np.stack([log[f"{name}_sequence_accuracy"] for name in ("train", "test")], 1)
        variables["sequence_accuracy"] = Variable("share of sequences with every target right", dims=("set",))
    names = [part.name for part in task.parts if f"test_loss_{part.name}" in log]
    for quantity in ("test_accuracy", "train_accuracy", "test_loss", "train_loss") if names else ():
        key = f"{quantity}_by_task"
        arrays[key] = np.stack([log[f"{quantity}_{name}"] for name in names], 1)
        is_loss = quantity.endswith("loss")
        label = f"{quantity.replace('_', ' ')} of each task"
        variables[key] = Variable(label, "nats" if is_loss else "", ("task",), is_logarithmic=is_loss)
    if not arrays:
        return []
    constants = {"sets": np.array(["train", "test"]), "tasks": np.array(names or [""]), "gaps": log["gaps"]}
    return [Series("log", log.steps, arrays, constants, digest=log.digest, variables=variables)]
