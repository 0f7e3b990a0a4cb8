"""The evaluation of a model in training: one row of the run's log."""

import math

from grokscope.config import RunConfig
from grokscope.model import losses
from grokscope.model.equation_batch import Equations
from grokscope.model.families import Model
from grokscope.threads import Threads
from grokscope.training.dataset import Dataset
from grokscope.training.state import NotFiniteError, State

Row = dict[str, float]
"""A row of the log without its step: `train_loss`, `test_loss` (nats), `train_accuracy` and `test_accuracy`.

The loss and the accuracy are means over all targets. Sequences add `train_sequence_accuracy` and
`test_sequence_accuracy`, the share of examples with all targets right. A task with several parts adds the loss and
the accuracy of each part, such as `test_loss_addition`.
"""


class Evaluator:
    """Evaluates a model on all equations of its task.

    Args:
        config: A valid config.
        model: The architecture.
        dataset: The task and its split.
        equations: All equations of the task, prepared once by `model.equations`.
        threads: The threads that evaluation uses.
    """

    def __init__(self, config: RunConfig, model: Model, dataset: Dataset, equations: Equations, threads: Threads):
        self._config, self._model, self._dataset = config, model, dataset
        self.equations, self._threads = equations, threads

    def evaluate(self, state: State) -> Row:
        """Return the log row of a state; raise NotFiniteError if a loss is not finite."""
        with self._threads.active():
            loss, is_right = losses.evaluate(
                self._model,
                state.parameters,
                self.equations,
                self._dataset.labels,
                self._config.loss_dtype,
                self._config.loss,
            )
        labels, sets = self._dataset.labels, {"train_": self._dataset.train, "test_": self._dataset.test}
        row = losses.means_by_part(loss, is_right, labels, sets)
        if self._dataset.task.is_sequence:
            row |= {
                f"{prefix}sequence_accuracy": float((is_right[i] == 1).double().mean()) for prefix, i in sets.items()
            }
        for part in self._dataset.task.parts:
            own = {
                prefix: indices[(indices >= part.examples.start) & (indices < part.examples.stop)]
                for prefix, indices in sets.items()
            }
            means = losses.means_by_part(loss, is_right, labels, own)
            row |= {f"{name}_{part.name}": mean for name, mean in means.items()}
        return require_finite_losses(row, state.step)


def require_finite_losses(row: Row, step: int) -> Row:
    """Return the row of a step unchanged; raise NotFiniteError if one of its losses is not finite."""
    for name in ("train_loss", "test_loss"):
        if not math.isfinite(row[name]):
            raise NotFiniteError(f"The {name}", step, step - 1, resumable=False)
    return row
