"""The steps of checkpoints in other programs' files: from the content, from epochs, or from the file's name."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop import safe_load

LARGEST_STEP = 10**9
"""The largest step, which is the largest `n_steps` of a config."""
_LARGEST_STATE = 2**24
_STEP_KEYS = ("step", "global_step", "iteration", "iter", "n_updates", "update", "epoch")
_STEPS_KEYS = ("steps", "global_steps", "iterations", "epochs", "checkpoint_epochs")
_STEPS_KEY = re.compile(r"(?:\w+_)?(?:steps|iterations|iters|updates|epochs)")
"""Other keys of the steps of a list, such as "saved_epochs"."""
_OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict", "optimizer_states", "optimizer_state", "optim", "opt")
_GENERIC_STEMS = re.compile(r"(pytorch_)?model(-\d{5}-of-\d{5})?|weights|checkpoint|ckpt|state_dict", re.IGNORECASE)
"""Names of files that leave the step to the name of their folder, as in checkpoint-500/model.safetensors."""
_FOLDER = re.compile(r"((?:global_?)?(?:step|iter|checkpoint|ckpt)[_-]?)(\d{1,10})", re.IGNORECASE)
_TAGS = (("step",), ("iteration", "iter"), ("checkpoint", "ckpt"))
"""The words before a step in a file's name. Words of an earlier group count more."""
_COUNTS = re.compile(r"(?:warmup|max|num|every|per|of)[ _=-]?\Z", re.IGNORECASE)
"""The end of the text before a word that makes its number a count, as in max_step_40000."""


@dataclass(frozen=True)
class Reading:
    """What a file's content tells about the step of one checkpoint."""

    key: str = ""
    """The key of the value, such as "step" or "epoch"; empty without one."""
    value: int = 0
    """The value under the key."""
    n_updates: int | None = None
    """The number of updates that the optimizer in the file has counted; None without an optimizer."""


def readings(content: Mapping[Any, Any], n: int, is_list: bool, path: Path) -> list[Reading]:
    """Return what a file's content tells about the steps of its `n` state dicts, in their order.

    Args:
        content: The content of the file.
        n: The number of state dicts.
        is_list: Whether the file contains a list of state dicts, and so a list of steps.
        path: The file, for messages.

    Raises:
        GrokscopeError: The steps are not one whole number per state dict.
    """
    key = next((key for key in (_STEPS_KEYS if is_list else _STEP_KEYS) if key in content), "")
    if is_list and not key:
        key = next((key for key in content if isinstance(key, str) and _STEPS_KEY.fullmatch(key)), "")
    if not key and not is_list and n == 1 and _count_updates(content) is None:
        return [_beside(path)]
    if not key:
        return [Reading(n_updates=None if is_list else _count_updates(content))] * n
    values: Any = content[key]
    if isinstance(values, Tensor) and values.numel() == n:
        values = values.tolist()
    if not is_list:
        values = [values]
    if isinstance(values, list | tuple):
        values = [value.item() if isinstance(value, Tensor) and value.numel() == 1 else value for value in values]
    is_valid = isinstance(values, list | tuple) and len(values) == n
    if not is_valid or not all(type(value) is int and 0 <= value < LARGEST_STEP for value in values):
        raise GrokscopeError(
            f"{path}: {key!r} does not contain a whole number from 0 to {LARGEST_STEP - 1:,} for each "
            f"state dict, of which there {'is 1' if n == 1 else f'are {n}'}. Name the steps with --steps."
        )
    return [Reading(key, int(value), None if is_list else _count_updates(content)) for value in values]


def resolve(file_readings: Sequence[Reading], path: Path, has_batches: bool) -> tuple[list[int], list[str]]:
    """Return the steps of a file's checkpoints, and sentences on how they were read.

    The order is: a step, global step or iteration in the file; an epoch in the file; the number of updates that the
    optimizer in the file has counted; a number after step, iter or ckpt in the file's name. Epoch e is the
    optimizer's number of updates, or e or e + 1 if the name says so, or else e + 1.

    Args:
        file_readings: The `readings` of the file.
        path: The file.
        has_batches: Whether an epoch has several updates, so that an epoch does not determine a step.

    Raises:
        GrokscopeError: A step is unknown, or the file's name contradicts its content.
    """
    is_alone = len(file_readings) == 1
    in_name = _number_in_name(path) if is_alone else None
    steps, reason = [], ""
    for reading in file_readings:
        step, reason = _resolve(reading, path, in_name, has_batches)
        if in_name not in (None, step):
            stored = f"{reading.key} {reading.value:,}" if reading.key else f"{step:,} updates of its optimizer"
            raise GrokscopeError(
                f"{path}: its name says step {in_name:,}, but it contains {stored}. Name the right step with --steps."
            )
        steps.append(step)
    return steps, [_sentence(file_readings, steps, path, reason)] if reason else []


def _resolve(reading: Reading, path: Path, in_name: int | None, has_batches: bool) -> tuple[int, str]:
    """Return the step of one checkpoint, and the reason if the content does not name it as a step."""
    n_updates, epoch = reading.n_updates, reading.value
    if reading.key and "epoch" not in reading.key:
        return reading.value, ""
    if not reading.key:
        if n_updates is not None:
            return n_updates, "its optimizer has counted them"
        if in_name is None:
            raise GrokscopeError(
                f"{quoted_value(str(path))} does not tell the step of its checkpoint. Name it with --steps, or put "
                "step, iter or ckpt before the number in the file's name, as in step_200.pt."
            )
        return in_name, ""
    epoch_in_name = _number_after((("epoch",),), path.stem)
    if epoch_in_name is not None and abs(epoch_in_name - epoch) > 1:
        raise GrokscopeError(
            f"{path}: its name says epoch {epoch_in_name:,}, but it contains epoch {epoch:,}. Name the step with "
            "--steps."
        )
    if n_updates is not None and n_updates >= epoch:
        return n_updates, "its optimizer has counted them"
    if in_name is not None and (has_batches or in_name in (epoch, epoch + 1)):
        return in_name, "its name says so"
    if has_batches or n_updates is not None:
        reason = "an epoch has several updates" if has_batches else f"its optimizer has counted {n_updates:,} updates"
        raise GrokscopeError(
            f"{path}: epoch {epoch:,} does not determine the step, because {reason}. Name the step with --steps."
        )
    return epoch + 1, "epochs count from 0, and a checkpoint follows the update of its epoch"


def _sentence(file_readings: Sequence[Reading], steps: list[int], path: Path, reason: str) -> str:
    """Return how the steps of a file were read."""
    epochs = [reading.value for reading in file_readings if reading.key]
    name = quoted_value(path.name)
    if not epochs:
        return f"{name} is step {steps[0]:,}, the number of updates: {reason}."
    if len(epochs) == 1:
        return f"{name}: epoch {epochs[0]:,} was read as step {steps[0]:,}: {reason}. --steps names another step."
    return (
        f"{name}: epochs {epochs[0]:,} to {epochs[-1]:,} were read as steps {steps[0]:,} to {steps[-1]:,}: {reason}. "
        "--steps names other steps."
    )


def is_step_key(key: str) -> bool:
    """Return whether a key of a file names a step or several."""
    return key in (*_STEP_KEYS, *_STEPS_KEYS)


def optimizer_of(content: Mapping[Any, Any]) -> Any:
    """Return the state of torch's optimizer in a file; of several, the first; None without one."""
    optimizer = next((content[key] for key in _OPTIMIZER_KEYS if key in content), None)
    return optimizer[0] if isinstance(optimizer, list | tuple) and optimizer else optimizer


def _beside(path: Path) -> Reading:
    """Return the step in the files that the packages transformers and accelerate save beside the weights."""
    try:
        state = path.parent / "trainer_state.json"
        if state.is_file() and state.stat().st_size <= _LARGEST_STATE:
            step = json.loads(state.read_bytes()).get("global_step")
            if type(step) is int and 0 <= step <= LARGEST_STEP:
                return Reading("global_step", step)
        for name in ("optimizer.bin", "optimizer.pt"):
            if _GENERIC_STEMS.fullmatch(path.stem) and (path.parent / name).is_file():
                return Reading(n_updates=_count_updates({"optimizer": safe_load.read(path.parent / name)}))
    except (OSError, ValueError, RecursionError, AttributeError, GrokscopeError):
        pass
    return Reading()


def _number_in_name(path: Path) -> int | None:
    """Return the step in a file's name, or in its folder's if the file's is generic."""
    number = _number_after(_TAGS, path.stem)
    match = _FOLDER.fullmatch(path.parent.name)
    # accelerate numbers the folders of its own loop by saves, and puts the random states beside the weights.
    is_count = match is not None and match[1] == "checkpoint_" and (path.parent / "random_states_0.pkl").is_file()
    if number is None and match and not is_count and _GENERIC_STEMS.fullmatch(path.stem):
        return int(match[2])
    return number


def _number_after(groups: Sequence[Sequence[str]], stem: str) -> int | None:
    """Return the number after a word in a file's name, the first group of words first; None if it is ambiguous.

    A number such as 1.5e6, 12,000, 1_000 or 40k is ambiguous, and so are two different numbers after such words.
    """
    for words in groups:
        pattern = rf"(?<![a-z])(?:{'|'.join(words)})[ _=-]?([0-9]{{1,18}})(?![0-9a-z]|[.,_][0-9])"
        matches = re.finditer(pattern, stem, re.IGNORECASE)
        numbers = {int(match[1]) for match in matches if not _COUNTS.search(stem[: match.start()])}
        if numbers:
            return numbers.pop() if len(numbers) == 1 else None
    return None


def _count_updates(content: Mapping[Any, Any]) -> int | None:
    """Return the number of updates in the state of torch's optimizer, if every parameter has the same."""
    optimizer = optimizer_of(content)
    state = optimizer.get("state") if isinstance(optimizer, Mapping) else None
    entries = list(state.values()) if isinstance(state, Mapping) else []
    counts = {_whole(entry.get("step")) for entry in entries if isinstance(entry, Mapping)}
    return counts.pop() if len(counts) == 1 else None


def _whole(value: Any) -> int | None:
    """Return a number of updates, which torch stores as a float in a tensor; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_STEP:
        return None
    return int(value) if value == int(value) else None
