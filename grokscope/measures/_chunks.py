"""Chunks of a trajectory: they bound the memory of a measure that stacks a parameter over the checkpoints."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grokscope.trajectory import Trajectory


def evaluate_in_chunks(
    trajectory: Trajectory, n_checkpoints: int, evaluate: Callable[[Trajectory], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the arrays of a trajectory, evaluated on consecutive chunks and concatenated over the steps.

    Args:
        trajectory: The checkpoints to measure, at least one.
        n_checkpoints: The most checkpoints in a chunk, from 1. All checkpoints of a chunk are in memory together.
        evaluate: The function that returns the arrays of a chunk by name. Each array has a leading axis of the
            chunk's steps, and every chunk has the same names.

    Returns:
        Each array over all steps of the trajectory.
    """
    pieces: dict[str, list[Tensor]] = {}
    for first in range(0, len(trajectory), n_checkpoints):
        for name, array in evaluate(trajectory[first : first + n_checkpoints]).items():
            pieces.setdefault(name, []).append(array)
    return {name: torch.cat(arrays) for name, arrays in pieces.items()}
