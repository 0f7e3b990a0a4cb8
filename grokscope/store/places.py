"""Where a run's checkpoints are stored: reads of many places at once, and the undamaged copy of each checkpoint."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from grokscope.errors import DamagedError, GrokscopeError
from grokscope.store.segment import CHECKPOINTS, Segment

Place = tuple[Segment, int]
"""A segment, and the row of a checkpoint in it."""


def read_stacked(names: Sequence[str], steps: Sequence[int], places: Mapping[int, Place]) -> dict[str, np.ndarray]:
    """Return each named parameter over the given steps, stacked along a leading step axis.

    Each segment is opened once.

    Args:
        names: The parameters to read.
        steps: The steps of the checkpoints, in the order of the result.
        places: The place of each checkpoint by its step.

    Raises:
        DamagedError: A checkpoint does not match its checksum.
    """
    requests: dict[Path, tuple[Segment, list[int], list[int]]] = {}
    for position, step in enumerate(steps):
        segment, row = places[step]
        _, rows, positions = requests.setdefault(segment.path, (segment, [], []))
        rows.append(row)
        positions.append(position)
    stacked: dict[str, np.ndarray] = {}
    for segment, rows, positions in requests.values():
        parts = segment.file.read_all([CHECKPOINTS + name for name in names], rows)
        for name in names:
            part = parts[CHECKPOINTS + name]
            if name not in stacked:
                stacked[name] = np.empty((len(steps), *part.shape[1:]), part.dtype)
            stacked[name][positions] = part
    return stacked


def undamaged_places(
    segments: Sequence[Segment],
    places: Mapping[int, Place],
    steps: Iterable[int],
    names: Sequence[str] | None = None,
) -> tuple[dict[int, Place], dict[int, DamagedError]]:
    """Read checkpoints, and return the places with undamaged copies, and the error of each checkpoint without one.

    Args:
        segments: All segments of the run, where copies are searched.
        places: The place of each checkpoint by its step.
        steps: The steps of the checkpoints to read.
        names: The parameters to read; by default all of them.

    Returns:
        `places` with each damaged checkpoint moved to an undamaged copy, and a DamagedError by its step where no
        segment has such a copy.
    """
    rows: dict[Path, tuple[Segment, list[int]]] = {}
    for step in sorted(set(steps)):
        segment, row = places[step]
        rows.setdefault(segment.path, (segment, []))[1].append(row)
    undamaged, damage = dict(places), {}
    for segment, segment_rows in rows.values():
        for row, name in segment.damaged_rows(segment_rows, names).items():
            step = segment.steps[row]
            if copy := _undamaged_copy(segments, step, segment):
                undamaged[step] = copy
            else:
                damage[step] = DamagedError(
                    f"{segment.path} is damaged: {CHECKPOINTS}{name} (step {step}) does not match its checksum.",
                    segment.path,
                    step,
                    name,
                )
    return undamaged, damage


def _undamaged_copy(segments: Sequence[Segment], step: int, damaged: Segment) -> Place | None:
    """Return the place of an undamaged copy of a checkpoint in another segment; None if there is none."""
    for segment in segments:
        if segment is not damaged and step in segment.steps:
            row = segment.steps.index(step)
            with suppress(GrokscopeError):
                if not segment.damaged_rows([row]):
                    return segment, row
    return None
