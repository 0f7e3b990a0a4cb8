"""How lost checkpoints are recovered: the command, or the reason why no command helps."""

import math
import shlex
from collections.abc import Collection
from pathlib import Path

import numpy as np

from grokscope.store.record import Record


def recovery_advice(
    folder: Path, record: Record, last_step: int, resume_steps: Collection[int], steps: Collection[int]
) -> str:
    """Return the sentence that names the command which recovers these lost checkpoints, or says why none does.

    Args:
        folder: The run's folder.
        record: The run's record.
        last_step: The last step that training can resume from.
        resume_steps: The steps of all readable resume states; may be empty.
        steps: The steps of the lost checkpoints, at least one.
    """
    steps = sorted(steps)
    several = len(steps) > 1
    span = f"steps {steps[0]:,} to {steps[-1]:,}" if several else f"step {steps[0]:,}"
    if record.imported:
        return f"The run was imported, so training cannot recompute {span}; import its files again."
    if not resume_steps:
        return "No readable resume state is left to continue training from."
    if steps[0] > last_step:
        return f"`grokscope resume {shlex.quote(str(folder))}` recomputes {span}."
    origin = record.origin
    if origin and not any(start <= steps[0] for start in resume_steps):
        return (
            f"No readable resume state precedes {span}. To recompute everything, fork {origin['run']} again at step "
            f"{origin['step']:,} with the same settings."
        )
    every = math.gcd(*np.diff(steps).tolist())
    spacing = f" --every {every}" if every > 1 else ""
    command = f"grokscope densify {shlex.quote(str(folder))} --start {steps[0]} --stop {steps[-1]}{spacing}"
    return f"`{command}` recomputes {span} and adds the checkpoint{'s' if several else ''}."
