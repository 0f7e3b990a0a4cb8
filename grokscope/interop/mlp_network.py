"""The network of an import that is an MLP: which of the chains that its matrices form, and with which task."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from grokscope import tasks
from grokscope.config import MlpConfig, RunConfig
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop import task_reading
from grokscope.interop.layouts import Perceptron
from grokscope.interop.questions import CLEAR_GAIN

ACTIVATIONS = ("relu", "gelu", "quadratic", "tanh")
_FORM = "a b"
"""The form of the equations of an imported MLP, which reads no signs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A chain with its task and its settings of ModelConfig, by dotted name."""

    perceptron: Perceptron
    config: RunConfig
    task: tasks.Task
    settings: dict[str, Any]
    unknown: dict[str, tuple[Any, ...]]
    notes: list[str]


def choose(
    perceptrons: Collection[Perceptron],
    config: RunConfig,
    facts: Mapping[str, Any],
    given: Collection[str],
    is_described: bool,
    accuracy: Callable[[Candidate], float],
) -> Candidate:
    """Return the chain that fits the task, or else the most usual one.

    If several fit, a chain that answers clearly more equations than a more usual one is chosen.

    Args:
        perceptrons: The chains, the most usual first.
        config: The caller's config.
        facts: The properties that the file's config names.
        given: The dotted names of the settings that the user gave.
        is_described: Whether the config describes the task.
        accuracy: Returns the largest accuracy of a candidate over the activation functions to try.

    Raises:
        GrokscopeError: No chain fits the task, or grokscope's MLP lacks the activation function.
    """
    candidates, refusals = [], []
    for perceptron in perceptrons:
        try:
            candidates.append(_candidate(perceptron, config, facts, given, is_described))
        except GrokscopeError as error:
            refusals.append(error)
    if not candidates:
        raise refusals[0]
    best = candidates[0]
    if len(candidates) > 1:
        accuracies = [accuracy(candidate) for candidate in candidates]
        for candidate, share in zip(candidates, accuracies, strict=True):
            if share > accuracies[candidates.index(best)] + CLEAR_GAIN:
                best = candidate
        others = [candidate.perceptron.words for candidate in candidates if candidate is not best]
        best.notes.append(
            f"The shapes also fit {others[0]}, which does not answer clearly more equations; the file does not tell "
            f"them apart otherwise."
        )
    return best


def _candidate(
    perceptron: Perceptron, config: RunConfig, facts: Mapping[str, Any], given: Collection[str], is_described: bool
) -> Candidate:
    """Return a chain with its task; raise GrokscopeError if it does not fit the task."""
    notes = []
    task_config = config.task
    if not is_described:
        sizes = (perceptron.n_elements, perceptron.n_operands)
        task_config, notes = task_reading.read(task_config, {}, facts, given, operands=sizes)
    task_config = dataclasses.replace(task_config, form=_FORM)
    config = dataclasses.replace(config, task=task_config).validate()
    task = tasks.build(task_config)
    if (task.d_vocab, task.operands.shape[1]) != (perceptron.n_elements, perceptron.n_operands):
        raise GrokscopeError(
            f"it is {perceptron.words} for {perceptron.n_operands} operands with {perceptron.n_elements} values, and "
            f"{task.formula} has {task.operands.shape[1]} operands with {task.d_vocab} values. Name its task with "
            "--task.name and --task.p."
        )
    settings: dict[str, Any] = {"family": "mlp"}
    settings |= {f"mlp.{name}": value for name, value in perceptron.settings.items()}
    unknown: dict[str, tuple[Any, ...]] = {}
    if "model.mlp.act_fn" in given:
        settings["mlp.act_fn"] = config.model.mlp.act_fn
    elif (act_fn := facts.get("act_fn")) is None:
        unknown["mlp.act_fn"] = ACTIVATIONS
    elif act_fn in ACTIVATIONS:
        settings["mlp.act_fn"] = act_fn
    else:
        raise GrokscopeError(
            f"it has act_fn = {quoted_value(act_fn)}, which grokscope's MLP cannot compute; allowed: "
            f"{', '.join(ACTIVATIONS)}."
        )
    defaults = MlpConfig()
    settings.setdefault("mlp.d_embed", defaults.d_embed)
    return Candidate(perceptron, config, task, settings, unknown, notes)
