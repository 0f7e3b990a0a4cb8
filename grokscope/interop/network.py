"""The network of an import: its task, its architecture, and the questions that the files leave open."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import tasks
from grokscope.algebra.isomorphisms import isomorphism
from grokscope.config import ModelConfig, RunConfig
from grokscope.config.dotted_settings import with_settings
from grokscope.errors import GrokscopeError
from grokscope.interop import architecture, mlp_network, questions, task_reading
from grokscope.interop.conversion import Conversion, biases, columns, completed
from grokscope.interop.formats import CheckpointFile
from grokscope.interop.layouts import Layout
from grokscope.model import families, losses

_MOST_EXAMPLES = 2000
"""The most equations on which candidates are tried."""
_LARGEST_GROUP = 720
"""The largest group whose elements are put in order."""


@dataclass
class Network:
    """What the files and the caller determine about the network.

    Attributes:
        config: The caller's config with the task of the files.
        task: The task.
        settings: The settings of ModelConfig that the files determine.
        unnamed: The settings that the files leave open and the caller's config decides.
        notes: Sentences on how the files were read.
    """

    config: RunConfig
    task: tasks.Task
    settings: dict[str, Any]
    unnamed: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def read(
    file: CheckpointFile,
    layout: Layout,
    config: RunConfig,
    conversion: Conversion,
    *,
    given: Collection[str],
    is_causal: bool,
    is_described: bool,
) -> Network:
    """Return the network of a checkpoint, and set the number of heads and the signs of its conversion.

    Args:
        file: The file, whose config counts.
        layout: The last checkpoint.
        config: The caller's config.
        conversion: The conversion of all checkpoints of the import.
        given: The dotted names of the settings that the user gave.
        is_causal: Whether the caller states that attention is causal.
        is_described: Whether the config describes the training, or only its given settings do.

    Raises:
        GrokscopeError: The network computes another function than grokscope's, or the caller is asked for a setting.
    """
    facts = {**layout.facts, **file.facts}
    if layout.perceptrons:
        return _read_mlp(layout, facts, config, conversion, given=given, is_described=is_described)
    unknown = _heads(layout, facts, config.model, conversion, given)
    notes = [f"The layout is that of {layout.name}."]
    if not is_described:
        raw = dataclasses.replace(conversion, notes=[]).convert(layout)
        task_config, sentences = task_reading.read(config.task, raw, facts, given)
        config = dataclasses.replace(config, task=task_config).validate()
        notes += sentences
    task = tasks.build(config.task)
    parameters = dataclasses.replace(conversion, notes=[]).convert(layout, task)
    design = architecture.read(parameters, facts, task, is_causal, given)
    settings = {**design.values, **columns(parameters, task)}
    if "d_vocab_out" in settings:
        notes.append(
            f"The model has {settings['d_vocab_out']} outputs for {task.d_vocab_out} answers; --answers-only leaves "
            "out the others."
        )
    settings["biases"] = biases(parameters, config.model.biases)
    unknown |= design.unknown
    trial = _Trials(layout, task, config, conversion, settings)
    notes += [*design.notes, *_settled(trial, unknown, is_described)]
    if "n_heads" in unknown:
        conversion.n_heads = config.model.n_heads
    if task.d_vocab == task.n_elements + 2 and trial.signs_are_swapped():
        conversion.swaps_signs = True
        notes.append(
            f"Token {task.n_elements} is '∘' and token {task.n_elements + 1} is '=' in the file, which answers more "
            "equations than the other order; their embeddings were exchanged."
        )
    return Network(config, task, settings, tuple(unknown), notes)


def _read_mlp(
    layout: Layout,
    facts: Mapping[str, Any],
    config: RunConfig,
    conversion: Conversion,
    *,
    given: Collection[str],
    is_described: bool,
) -> Network:
    """Return the network of a checkpoint that is an MLP, and set the chain and the order of its conversion."""

    @cache
    def trials(candidate: mlp_network.Candidate) -> "_Trials":
        chain = candidate.perceptron
        chosen = {**chain.settings, "n_elements": chain.n_elements}
        own = dataclasses.replace(conversion, settings=chosen, notes=[])
        return _Trials(layout, candidate.task, candidate.config, own, candidate.settings)

    def accuracy(candidate: mlp_network.Candidate) -> float:
        results = [
            trials(candidate).evaluate({"mlp.act_fn": act_fn})
            for act_fn in candidate.unknown.get("mlp.act_fn", (candidate.settings.get("mlp.act_fn"),))
        ]
        return max((result.accuracy for result in results if result), default=0.0)

    chosen = mlp_network.choose(layout.perceptrons, config, facts, given, is_described, accuracy)
    notes = [f"The layout is that of {chosen.perceptron.words}.", *chosen.notes]
    trial = trials(chosen)
    notes += _settled(trial, chosen.unknown, is_described)
    conversion.settings, conversion.order = trial.conversion.settings, trial.conversion.order
    return Network(chosen.config, chosen.task, chosen.settings, tuple(chosen.unknown), notes)


def _settled(trial: "_Trials", unknown: Mapping[str, tuple[Any, ...]], is_described: bool) -> list[str]:
    """Return sentences on open settings and on the order of a group's elements, which the conversion receives."""
    model = trial.config.model
    stated = {name: attrgetter(name)(model) for name in unknown} if is_described else None
    notes = questions.settle(unknown, stated, trial.evaluate)
    trial.conversion.order = trial.order_of(stated or {})
    if trial.conversion.order is not None:
        assert trial.task.group is not None
        notes.append(
            f"The elements are in another order in the file. Its answers to all {len(trial.task.inputs):,} equations "
            f"form the table of {trial.task.group.name} in that order, so its elements were reordered as ours; an "
            "automorphism of the group would give another such order."
        )
    return notes


def _heads(
    layout: Layout, facts: Mapping[str, Any], model: ModelConfig, conversion: Conversion, given: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Set the number of heads of a conversion; return the candidates if nothing names it."""
    n_heads = layout.n_heads or facts.get("n_heads")
    if isinstance(n_heads, int) and n_heads > 0:
        if "model.n_heads" in given and model.n_heads != n_heads:
            raise GrokscopeError(
                f"model.n_heads: {model.n_heads} was given, but the file has {n_heads}. Leave the setting out."
            )
        conversion.n_heads = n_heads
        return {}
    conversion.n_heads = model.n_heads
    if layout.attention_width is None or "model.n_heads" in given:
        return {}
    candidates = tuple(n for n in range(1, 65) if layout.attention_width % n == 0)
    if conversion.n_heads not in candidates:
        conversion.n_heads = 1
    return {"n_heads": candidates}


@dataclass
class _Trials:
    """The evaluation of a checkpoint under candidates for what the files leave open."""

    layout: Layout
    task: tasks.Task
    config: RunConfig
    conversion: Conversion
    settings: Mapping[str, Any]
    _orders: dict[str, Int[Tensor, " n"] | None] = field(default_factory=dict)

    def evaluate(self, candidate: Mapping[str, Any], swaps_signs: bool = False) -> questions.Trial | None:
        """Return the accuracy and loss over all equations, or evenly spaced ones of many; None if nothing fits.

        The elements of a group are first brought into our order, if the network's answers tell another one.
        """
        own = dataclasses.replace(self.conversion, swaps_signs=swaps_signs)
        order = self.order_of(candidate) if self.task.group is not None else None
        network = self._network(candidate, dataclasses.replace(own, order=order))
        if network is None:
            return None
        model, parameters = network
        rows = torch.linspace(0, len(self.task.inputs) - 1, min(_MOST_EXAMPLES, len(self.task.inputs))).long()
        example_losses, is_right = losses.evaluate(
            model,
            parameters,
            self.task.inputs[rows],
            self.task.labels[rows],
            self.config.loss_dtype,
            self.config.loss,
        )
        return questions.Trial(float(is_right.double().mean()), float(example_losses.mean()))

    def order_of(self, candidate: Mapping[str, Any]) -> Int[Tensor, " n"] | None:
        """Return the element of the file that each element of our group is; None if their orders do not differ.

        A network that answers every equation of a group shows the whole table of the group.
        """
        key = repr(sorted(candidate.items()))
        if key not in self._orders:
            network = self._network(candidate, self.conversion)
            self._orders[key] = None if network is None else _order(*network, self.task)
        return self._orders[key]

    def _network(
        self, candidate: Mapping[str, Any], conversion: Conversion
    ) -> tuple[families.Model, dict[str, Tensor]] | None:
        """Return the network with some settings and its parameters; None if they do not fit."""
        n_heads = candidate.get("n_heads", conversion.n_heads)
        conversion = dataclasses.replace(conversion, n_heads=n_heads, notes=[])
        try:
            parameters = conversion.convert(self.layout, self.task)
            settings = {**self.settings, **candidate}
            model = families.build(with_settings(self.config.model, settings), self.task)
        except GrokscopeError:
            return None
        parameters = completed(parameters, model.shapes)
        parameters = {
            name: value.float()
            for name, value in parameters.items()
            if isinstance(value, Tensor) and name in model.shapes
        }
        return None if model.faults(parameters) else (model, parameters)

    def signs_are_swapped(self) -> bool:
        """Return whether "=" and "∘" have each other's tokens, judged by the accuracy."""
        own, swapped = self.evaluate({}), self.evaluate({}, swaps_signs=True)
        return own is not None and swapped is not None and swapped.accuracy > own.accuracy + questions.CLEAR_GAIN


def _order(model: families.Model, parameters: dict[str, Tensor], task: tasks.Task) -> Int[Tensor, " n"] | None:
    """Return the element of the file that each element of a task's group is; None if their orders do not differ."""
    group = task.group
    if group is None or not task.is_composition or len(group) > _LARGEST_GROUP:
        return None
    if len(task.inputs) != len(group) ** 2:
        return None
    answers = torch.cat([model.logits(parameters, part).argmax(-1) for part in task.inputs.split(4096)])
    if torch.equal(answers, task.labels) or int(answers.max()) >= len(group):
        return None
    table = torch.zeros(len(group), len(group), dtype=torch.int64)
    table[task.operands[:, 0], task.operands[:, 1]] = answers
    mapping = isomorphism(table.numpy(), group)
    return None if mapping is None else torch.from_numpy(mapping).argsort()
