"""Doubts about an imported run: a loss above chance, other stored losses, a better activation."""

import dataclasses
import math
from collections.abc import Collection
from functools import partial

from grokscope.interop.formats import CheckpointFile
from grokscope.interop.stored_losses import Means, compare, likely_cause, stored_losses
from grokscope.model import losses
from grokscope.series import Series
from grokscope.trajectory import Trajectory


def assess(
    trajectory: Trajectory,
    log: Series,
    files: list[tuple[CheckpointFile, list[int]]],
    unnamed: Collection[str],
    notes: list[str],
) -> list[str]:
    """Return sentences that cast doubt on an import; sentences that do not are added to `notes`.

    Args:
        trajectory: The imported checkpoints in memory.
        log: The measure `loss` of the trajectory.
        files: The files, each with the steps of its state dicts.
        unnamed: The settings of ModelConfig that the files leave open.
        notes: Receives the sentences on stored losses that agree.
    """
    doubts = _chance_doubts(trajectory, log)
    stored = [item for file, steps in files for item in stored_losses(file, steps)]
    if not stored:
        return doubts
    ours = {item.step: _logged(log, item.step) for item in stored}
    split = trajectory.split_or_none
    share = len(split.train) / len(trajectory.task.inputs) if split else None
    sentence, differing = compare(stored, ours, share, trajectory.config.loss)
    if differing is None or share is None:
        notes.append(sentence)
        return doubts
    other = "relu" if trajectory.config.model.act_fn == "gelu" else "gelu"
    variants = {
        f"model.act_fn {other!r} fits the loss in the file": partial(_means, trajectory, differing.step, other)
    }
    cause = likely_cause(differing, stored, ours[differing.step], share, variants if "act_fn" in unnamed else {})
    return [*doubts, f"{sentence}: {cause}."]


def _chance_doubts(trajectory: Trajectory, log: Series) -> list[str]:
    """Return a sentence if the last checkpoint's loss is above that of a guess; an untrained one has about that."""
    last, chance = int(log.steps[-1]), math.log(trajectory.task.d_vocab_out)
    name = "train_loss" if trajectory.has_split else "loss"
    loss = float(log[name][-1])
    if not last or not loss > chance:
        return []
    words = log.variable(name).label
    sentence = (
        f"At step {last:,} the {words} is {loss:.4g}, above chance, ln({trajectory.task.d_vocab_out}) = {chance:.4g}"
    )
    if trajectory.has_split:
        return [
            f"{sentence}. The task, the order of its elements, the architecture or the training set is another one."
        ]
    accuracy = float(log["accuracy"][-1])
    return [
        f"{sentence}; the accuracy is {accuracy:.1%}. The training set is unknown, and a model that has only "
        "memorized it looks like this: to check, import with --train-indices FILE or --split random-shuffle:SEED. "
        "Otherwise the task, the order of its elements or the architecture is another one."
    ]


def _logged(log: Series, step: int) -> Means:
    row = log.steps.tolist().index(step)
    parts = [float(log[f"{part}_loss"][row]) if f"{part}_loss" in log else None for part in ("train", "test")]
    return Means(float(log["loss"][row]), float(log["accuracy"][row]), *parts)


def _means(trajectory: Trajectory, step: int, act_fn: str) -> Means:
    """Return the losses of a checkpoint with another activation function."""
    model, task, config = trajectory.model, trajectory.task, trajectory.config
    changed = dataclasses.replace(model, config=dataclasses.replace(model.config, act_fn=act_fn))
    example_losses, is_right = losses.evaluate(
        changed, trajectory.at(step).parameters, task.inputs, task.labels, config.loss_dtype, config.loss
    )
    split = trajectory.split_or_none
    parts = [float(example_losses[part].mean()) for part in (split.train, split.test)] if split else []
    return Means(float(example_losses.mean()), float(is_right.double().mean()), *parts)
