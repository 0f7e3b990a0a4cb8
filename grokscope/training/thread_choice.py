"""The number of threads of a training: a function of sizes, never of the momentary load, because it decides bits."""

from collections.abc import Mapping

from grokscope.config import RunConfig
from grokscope.model import losses
from grokscope.model.equation_batch import Equations
from grokscope.model.families import Model
from grokscope.threads import Threads, available_cores

_SPEED = 6e10
"""The operations per second of a core in small matrix products: 60 to 90 GFLOP/s in the cores that we measured."""
_SERIAL_SECONDS, _PART_SECONDS = 5e-3, 2e-4
"""The time of a step that no part contains, and of a part apart from its matrix products."""
_LEAST_GAIN = 4 / 3
"""A second thread must make a step at least this many times as fast."""
_FURTHER_GAIN = 1.05
"""Each further thread must make a step at least this many times as fast."""
_OPERATIONS_PER_THREAD = 4e9
"""The least work of a step for each thread, if torch divides single operations among them."""


def choose_threads(
    config: RunConfig, model: Model, equations: Equations, n_batch: int, recorded: Mapping[str, str] | None = None
) -> Threads:
    """Return the threads of a training.

    A number in `config.threads` is used as it is. "auto" uses the number that the run has recorded. A new run
    uses one thread if a second would make the step less than a third faster. Otherwise it uses as many threads as
    bring a gain. It never uses more threads than the cores that are available to this process.

    Args:
        config: The run's config.
        model: The architecture.
        equations: Equations of the task.
        n_batch: The number of equations in a batch.
        recorded: The recorded environment of a run that continues.
    """
    n_parts, n_operations = (count(model, equations, n_batch) for count in (losses.n_parts, losses.n_operations))
    if n_parts == 1 or config.device != "cpu":
        return Threads(_kept(config, recorded) or _over_operations(n_operations), over_parts=False)
    part_seconds = _PART_SECONDS + n_operations / n_parts / _SPEED

    def seconds(n: int) -> float:
        return _SERIAL_SECONDS + -(-n_parts // n) * part_seconds

    chosen = 1
    for n in range(2, available_cores() + 1):
        if seconds(chosen) / seconds(n) >= (_LEAST_GAIN if chosen == 1 else _FURTHER_GAIN):
            chosen = n
    return Threads(_kept(config, recorded) or chosen, over_parts=True)


def ensemble_threads(config: RunConfig, model: Model, equations: Equations, n_batch: int) -> Threads:
    """Return the threads of an ensemble, whose operations are over all models at once.

    Args:
        config: The config that the models share.
        model: The architecture.
        equations: Equations of the task.
        n_batch: The number of equations in the batches of all models together.
    """
    n = _kept(config, None) or _over_operations(losses.n_operations(model, equations, n_batch))
    return Threads(n, over_parts=False)


def _kept(config: RunConfig, recorded: Mapping[str, str] | None) -> int | None:
    """Return the number of threads that the config or the run's record determines; None for a new choice."""
    if config.threads != "auto":
        return config.threads
    n = (recorded or {}).get("threads", "")
    return min(int(n), available_cores()) if n.isdecimal() else None


def _over_operations(n_operations: int) -> int:
    """Return the number of threads that may share the operations of a step."""
    return int(min(max(n_operations / _OPERATIONS_PER_THREAD, 1), available_cores()))
