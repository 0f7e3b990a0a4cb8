"""The evaluation of a model in training: one row of the run's log."""

import math

from grokscope.config import RunConfig
from grokscope.model import losses
from grokscope.model.equation_batch import Equations
from grokscope.model.transformer import Model
from grokscope.training.dataset import Dataset
from grokscope.training.state import NotFiniteError, State

Row = dict[str, float]
"""A row of the log without its step: `train_loss`, `test_loss` (nats), `train_accuracy` and `test_accuracy`."""


class Evaluator:
    """Evaluates a model on all equations of its task.

    Args:
        config: A valid config.
        model: The architecture.
        dataset: The task and its split.
        equations: All equations of the task, prepared once by `model.equations`.
    """

    def __init__(self, config: RunConfig, model: Model, dataset: Dataset, equations: Equations):
        self._config, self._model, self._dataset = config, model, dataset
        self.equations = equations

    def evaluate(self, state: State) -> Row:
        """Return the log row of a state; raise NotFiniteError if a loss is not finite."""
        loss, is_right = losses.evaluate(
            self._model,
            state.parameters,
            self.equations,
            self._dataset.labels,
            self._config.loss_dtype,
            self._config.loss,
        )
        train, test = self._dataset.train, self._dataset.test
        row = {
            "train_loss": float(loss[train].mean()),
            "test_loss": float(loss[test].mean()),
            "train_accuracy": float(is_right[train].double().mean()),
            "test_accuracy": float(is_right[test].double().mean()),
        }
        return require_finite_losses(row, state.step)


def require_finite_losses(row: Row, step: int) -> Row:
    """Return the row of a step unchanged; raise NotFiniteError if one of its losses is not finite."""
    for name in ("train_loss", "test_loss"):
        if not math.isfinite(row[name]):
            raise NotFiniteError(f"The {name}", step, step - 1, resumable=False)
    return row
