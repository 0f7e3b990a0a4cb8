"""The log of a run as a Series, and the descriptions of its columns."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from grokscope import tasks
from grokscope.config import RunConfig, TaskConfig, task_size
from grokscope.series import Series
from grokscope.store.source import Log
from grokscope.variable import Variable

_VARIABLES = {
    "train_loss": Variable("{loss} train loss", "nats", is_logarithmic=True),
    "test_loss": Variable("{loss} test loss", "nats", is_logarithmic=True),
    "train_accuracy": Variable("train accuracy"),
    "test_accuracy": Variable("test accuracy"),
}
_UNSPLIT_VARIABLES = {
    "loss": Variable("{loss} loss over all equations", "nats", is_logarithmic=True),
    "accuracy": Variable("accuracy over all equations"),
}


def log_series(
    log: Log, gaps: Sequence[tuple[int, int]], digest: str, config: RunConfig, unsplit_task: tasks.Task | None = None
) -> Series:
    """Return the log of a run as a Series "log" over the evaluated steps.

    Args:
        log: The log as it is stored.
        gaps: The stretches (first, last) of training that no segment covers; those of the log are added.
        digest: The digest of the trajectory.
        config: The run's config.
        unsplit_task: The task if the training set is not known. The log then has `loss` and `accuracy` over all
            equations.
    """
    arrays = {name: log.rows[:, column] for column, name in enumerate(log.columns) if column}
    return Series(
        "log",
        log.rows[:, 0].astype(np.int64),
        arrays if unsplit_task is None else _over_all_equations(arrays, config.task, unsplit_task),
        {"gaps": np.array(sorted([*gaps, *log.gaps]), np.int64).reshape(-1, 2)},
        digest=digest,
        variables=_variables(arrays) if unsplit_task is None else _UNSPLIT_VARIABLES,
        loss=config.loss,
    )


def _variables(names: Iterable[str]) -> dict[str, Variable]:
    """Return the description of each column of the log, also of those that only some tasks have."""
    variables = dict(_VARIABLES)
    for name in names:
        is_loss = "_loss" in name
        words = f"{'{loss} ' if is_loss else ''}{name.replace('_', ' ')}"
        variables.setdefault(name, Variable(words, "nats" if is_loss else "", is_logarithmic=is_loss))
    return variables


def _over_all_equations(
    arrays: Mapping[str, np.ndarray], config: TaskConfig, task: tasks.Task
) -> dict[str, Float[np.ndarray, " rows"]]:
    """Return the log of a run whose training set is unknown: `loss` and `accuracy`, the means over all equations.

    They are stored in the columns of the train set, and those of the test set are NaN. An import of grokscope 0.2.0
    stores means over a split that the config drew, and the sizes of its parts give the means over all equations.

    Args:
        arrays: The stored columns of the log by name.
        config: The task's settings.
        task: The task.
    """
    n_examples = len(task.inputs)
    share = task_size.n_train(config.train_fraction, n_examples) / n_examples
    means = {}
    for name in ("loss", "accuracy"):
        train, test = arrays[f"train_{name}"], arrays[f"test_{name}"]
        means[name] = np.where(np.isnan(test), train, share * train + (1 - share) * test)
    return means
