"""The losses that other programs store beside their checkpoints, compared with those that are evaluated here."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from grokscope.interop.formats import CheckpointFile

AGREEMENT = 0.01
"""The relative difference up to which two losses agree."""
_PARTS = {"train": ("train",), "test": ("test", "val")}


@dataclass(frozen=True)
class Means:
    """Mean losses and the accuracy of one model."""

    all: float
    """The loss over all equations."""
    accuracy: float
    """The accuracy over all equations."""
    train: float | None = None
    """The loss over the training set; None if it is unknown."""
    test: float | None = None
    """The loss over the test set; None if it is unknown or empty."""


@dataclass(frozen=True)
class Stored:
    """A loss that a file stores for one checkpoint."""

    step: int
    part: str
    """The part of the equations, "train" or "test"."""
    loss: float
    last_change: float = 0.0
    """The change of the loss between the last two evaluations that the file stores; 0 if it stores fewer."""


def stored_losses(file: CheckpointFile, steps: list[int]) -> Iterator[Stored]:
    """Yield the losses that a file stores for its checkpoints, which have these steps.

    A list of losses belongs to a list of checkpoints only if it has one loss per update. Its entry s is then the loss
    after s updates, if the code evaluated the loss before each update.
    """
    for part, prefixes in _PARTS.items():
        scalar = next((file.losses[key] for prefix in prefixes if (key := f"{prefix}_loss") in file.losses), None)
        series = next((file.losses[key] for prefix in prefixes if (key := f"{prefix}_losses") in file.losses), None)
        history = _numbers(series)
        change = abs(history[-1] - history[-2]) if len(history) > 1 else 0.0
        loss = _number(scalar)
        if len(steps) == 1 and loss is not None:
            yield Stored(steps[0], part, loss, change)
        elif len(history) == max(steps):
            for step in steps:
                if step < len(history):
                    yield Stored(step, part, history[step], abs(history[step] - history[step - 1]) if step else 0.0)


def compare(
    stored: list[Stored], ours: Mapping[int, Means], train_share: float | None, loss: str
) -> tuple[str, Stored | None]:
    """Return a sentence on whether stored losses agree with ours, and the stored loss that differs most, if one does.

    Args:
        stored: The stored losses, at least one.
        ours: Our losses by step.
        train_share: The share of the equations in the training set; None if the training set is unknown.
        loss: The loss function of ours, such as "softmax", which the sentence states.
    """
    if train_share is None:
        return _unsplit_sentence(stored, ours, loss), None
    differences = {item: _relative(item.loss, getattr(ours[item.step], item.part)) for item in stored}
    worst = max(differences, key=lambda item: differences[item])
    own = getattr(ours[worst.step], worst.part)
    if differences[worst] <= AGREEMENT:
        numbers = f"{worst.part} loss {worst.loss:.5g} and {own:.5g} at step {worst.step:,}"
        return f"The losses in the file agree with ours ({loss}) to {differences[worst]:.2g}: {numbers}.", None
    theirs = f"At step {worst.step:,} the {worst.part} loss in the file is {worst.loss:.5g}"
    return f"{theirs}, and ours ({loss}) is {own:.5g}", worst


def likely_cause(
    differing: Stored,
    stored: list[Stored],
    ours: Means,
    train_share: float,
    variants: Mapping[str, Callable[[], Means]],
) -> str:
    """Return the likely cause of a difference, as the end of a sentence.

    Args:
        differing: The stored loss that differs.
        stored: All stored losses.
        ours: Our losses at its step.
        train_share: The share of the equations in the training set.
        variants: What would explain the difference → our losses under it.
    """
    own = getattr(ours, differing.part)
    if abs(differing.loss - own) <= 3 * differing.last_change:
        return "the code may have evaluated the loss before its last update"
    for words, evaluate in variants.items():
        if _relative(differing.loss, getattr(evaluate(), differing.part)) <= AGREEMENT:
            return words
    by_part = {item.part: item.loss for item in stored if item.step == differing.step}
    if len(by_part) == 2:
        mixture = train_share * by_part["train"] + (1 - train_share) * by_part["test"]
        if _relative(mixture, ours.all) <= 5 * AGREEMENT:
            return "the training set is probably another one, because the losses over all equations agree"
    return "the task, the architecture, the loss function or the step of the evaluation is probably another one"


def _unsplit_sentence(stored: list[Stored], ours: Mapping[int, Means], loss: str) -> str:
    """Return what stored train and test losses tell about a run whose training set is unknown."""
    last = max(item.step for item in stored)
    by_part = {item.part: item.loss for item in stored if item.step == last}
    numbers = " and ".join(f"{part} loss {value:.5g}" for part, value in by_part.items())
    sentence = (
        f"The file contains {numbers} at step {last:,}; ours ({loss}) over all equations is {ours[last].all:.5g}"
    )
    train, test = by_part.get("train"), by_part.get("test")
    if train is None or test is None or train == test:
        return f"{sentence}."
    share = (test - ours[last].all) / (test - train)
    if 0 < share < 1:
        return f"{sentence}, which fits if {share:.1%} of the equations were trained on."
    return f"{sentence}, which is not between them, so the task or the architecture is probably another one."


def _relative(stored: float, own: float | None) -> float:
    """Return the relative difference of two losses; 0 if ours is missing."""
    if own is None or math.isnan(own):
        return 0.0
    return abs(stored - own) / max(abs(own), 1e-300)


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _numbers(values: Any) -> list[float]:
    """Return the numbers of a list or tensor; empty if one of them is missing or not finite."""
    if isinstance(values, Tensor):
        values = values.flatten().tolist()
    numbers = [_number(value) for value in values] if isinstance(values, list | tuple) else []
    return [number for number in numbers if number is not None] if None not in numbers else []
